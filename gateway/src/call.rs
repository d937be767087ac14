//! One caller's call, as everything behind the edge sees it: until when, under which id, by whom. Knows neither gRPC
//! nor NATS.

use std::borrow::Cow;
use std::sync::Arc;

use contract::{Delivered, Failure, Reason, header};
use telemetry::{Kind, Span};
use tokio::time::Instant;

use crate::share::{Hold, Shares};

/// What travels along with a call.
#[derive(Clone)]
pub struct Call {
    /// When the answer stops being of use: the caller's deadline, less what it takes to say so.
    pub deadline: Instant,
    /// Who set the deadline.
    pub limit: Limit,
    /// The id that the caller or the gateway gave the request, for headers and logs.
    pub request_id: Option<Box<str>>,
    /// Who calls; empty without authentication.
    pub principal: Box<str>,
    /// The customer whose orders alone the caller may see; none: all.
    pub customer: Option<Box<str>>,
    /// The caller's hold on the gateway: kept by whatever works for the call, also once the caller has left.
    pub hold: Option<Arc<Hold>>,
    /// W3C `traceparent`, `tracestate` and `baggage` as received, for the services behind.
    pub trace: Vec<(&'static str, Box<str>)>,
    /// What is done for the call goes under this span; it is empty where the call is not traced.
    pub span: Span,
}

/// Who set a call's deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The caller.
    Caller,
    /// The gateway, as the caller set none.
    Budget,
}

impl Call {
    /// A call of the gateway's own, until a deadline.
    pub fn until(deadline: Instant) -> Call {
        Call {
            deadline,
            limit: Limit::Budget,
            request_id: None,
            principal: Box::default(),
            customer: None,
            hold: None,
            trace: Vec::new(),
            span: Span::default(),
        }
    }

    /// The call as a part of it sees it: what that does goes under a span of its own.
    #[must_use]
    pub fn under(&self, name: &'static str, kind: Kind) -> Call {
        Call { span: self.span.child(name, kind), ..self.clone() }
    }

    /// The trace context for whoever works for this call under `span`, which is that of the caller where nothing is
    /// traced here.
    pub fn context<'a>(&'a self, span: &Span) -> impl Iterator<Item = (&'static str, Cow<'a, str>)> {
        let own = span.parent();
        let parent = own.is_none();
        let theirs = self.trace.iter().filter(move |(name, _)| parent || *name != header::TRACEPARENT);
        let theirs = theirs.map(|(name, value)| (*name, Cow::Borrowed(&**value)));
        own.map(|own| (header::TRACEPARENT, Cow::Owned(own))).into_iter().chain(theirs)
    }

    /// What the caller holds of what all callers share; none for the gateway's own calls.
    pub fn shares(&self) -> Option<&Arc<Shares>> {
        self.hold.as_ref().map(|hold| hold.shares())
    }

    /// Whether the deadline has passed.
    pub fn over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// The failure of a call whose deadline has passed.
    pub fn late(&self, delivered: Delivered) -> Failure {
        match self.limit {
            Limit::Caller => Failure::new(Reason::Deadline, "the caller's deadline passed"),
            Limit::Budget => Failure::new(Reason::Timeout, "no answer in time"),
        }
        .delivered(delivered)
    }
}
