//! The context of a call, as everything behind the gRPC port sees it: its deadline, its request id, its caller. Must not
//! depend on gRPC or NATS.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use telemetry::{Span, SpanRole};
use tokio::time::Instant;
use wire::header;
use wire::{Delivered, Failure, Metadata, Reason};

use crate::share::{Share, Shares};

/// Maximum duration of a call, whatever deadline its caller sets.
pub const LONGEST: Duration = Duration::from_secs(300);

/// The context of a call.
#[derive(Clone)]
pub struct CallContext {
    /// When the answer becomes useless: the caller's deadline, less the time it takes to send the error.
    pub deadline: Instant,
    /// Who set the deadline.
    pub limit: Limit,
    /// The request id from the caller or the gateway, for headers and logs.
    pub request_id: Option<Box<str>>,
    /// The authenticated caller; empty without authentication.
    pub principal: Box<str>,
    /// The tenant that the caller acts for.
    pub tenant: Tenancy,
    /// The caller's permit: held by all work for the call, even after the caller has cancelled it.
    pub hold: Option<Arc<Share>>,
    /// W3C `traceparent`, `tracestate` and `baggage` as received, for the services.
    pub trace: Vec<(&'static str, Box<str>)>,
    /// The caller's metadata that the route passes on, by the names of its headers on NATS.
    pub metadata: Metadata,
    /// The parent span of all work for the call; empty if the call is not traced.
    pub span: Span,
}

/// The tenant that a caller acts for, as its credential says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tenancy {
    /// Nothing is said, or nobody knows who calls: where a route keeps tenants apart, that is none of them.
    #[default]
    Unnamed,
    /// This tenant alone.
    One(Box<str>),
    /// All tenants: the credential is marked so.
    All,
}

impl Tenancy {
    /// The one tenant that the caller acts for.
    pub fn one(&self) -> Option<&str> {
        match self {
            Tenancy::One(tenant) => Some(tenant),
            Tenancy::Unnamed | Tenancy::All => None,
        }
    }
}

/// Who set a call's deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The caller.
    Caller,
    /// The gateway, because the caller set none.
    Budget,
}

impl CallContext {
    /// A call that the gateway itself makes, with a deadline.
    pub fn until(deadline: Instant) -> CallContext {
        CallContext {
            deadline,
            limit: Limit::Budget,
            request_id: None,
            principal: Box::default(),
            tenant: Tenancy::Unnamed,
            hold: None,
            trace: Vec::new(),
            metadata: Metadata::new(),
            span: Span::default(),
        }
    }

    /// The same call with a child span, for a part of its work.
    #[must_use]
    pub fn under(&self, name: &'static str, kind: SpanRole) -> CallContext {
        CallContext { span: self.span.child(name, kind), ..self.clone() }
    }

    /// The trace context for a service that works for this call under `span`; the caller's if nothing is traced here.
    pub fn context<'a>(&'a self, span: &Span) -> impl Iterator<Item = (&'static str, Cow<'a, str>)> {
        let own = span.parent();
        let parent = own.is_none();
        let theirs = self.trace.iter().filter(move |(name, _)| parent || *name != header::TRACEPARENT);
        let theirs = theirs.map(|(name, value)| (*name, Cow::Borrowed(&**value)));
        own.map(|own| (header::TRACEPARENT, Cow::Owned(own))).into_iter().chain(theirs)
    }

    /// The caller's shares of limits that all callers share; none for the gateway's own calls.
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
