//! One caller's call, as everything behind the edge sees it: until when, under which id, by whom. Knows neither gRPC
//! nor NATS.

use contract::{Delivered, Failure, Reason};
use tokio::time::Instant;

/// What travels along with a call.
#[derive(Debug, Clone)]
pub struct Call {
    /// When the answer stops being of use: the caller's deadline, less what it takes to say so.
    pub deadline: Instant,
    /// Who set the deadline.
    pub limit: Limit,
    /// The id that the caller or the gateway gave the request, for headers and logs.
    pub request_id: Option<Box<str>>,
    /// Who calls; empty without authentication.
    pub principal: Box<str>,
    /// W3C `traceparent` and `tracestate` as received, for the services behind.
    pub trace: Vec<(&'static str, Box<str>)>,
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
            trace: Vec::new(),
        }
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
