//! One caller's call, as everything behind the edge sees it: until when, under which id, by whom.

use tokio::time::Instant;

/// What travels along with a call.
#[derive(Debug, Clone)]
pub struct Call {
    /// When the answer stops being of use: the caller's deadline, less what it takes to say so.
    pub deadline: Instant,
    /// The id that the caller or the gateway gave the request, for headers and logs.
    pub request_id: Option<Box<str>>,
    /// Who calls; empty without authentication.
    pub principal: Box<str>,
    /// W3C `traceparent` and `tracestate` as received, for the services behind.
    pub trace: Vec<(&'static str, Box<str>)>,
}
