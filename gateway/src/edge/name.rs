//! The names of a call's headers. They are found quicker by a name that is one than by a text that has to become one.

use contract::header;
use http::HeaderName;

pub(super) static BAGGAGE: HeaderName = HeaderName::from_static(header::BAGGAGE);
pub(super) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) static TRACEPARENT: HeaderName = HeaderName::from_static(header::TRACEPARENT);
pub(super) static TRACESTATE: HeaderName = HeaderName::from_static(header::TRACESTATE);
