//! Names of the headers that requests and replies have on NATS, whatever the service.

/// The caller's id of the request.
pub const REQUEST_ID: &str = "Request-Id";
/// When the answer stops being useful: Unix time in milliseconds. Work that has not begun by then is refused.
pub const REQUEST_DEADLINE: &str = "Request-Deadline";
/// For how many milliseconds after sending the answer is useful: the same as `Request-Deadline`, but independent of the
/// clocks of sender and receiver.
pub const REQUEST_TIMEOUT: &str = "Request-Timeout";
/// The principal that the gateway authenticated.
pub const PRINCIPAL: &str = "Principal";
/// The tenant that the caller's credential acts for, as by [`crate::ascii::word`]. None: it names no single one.
pub const TENANT: &str = "Tenant";
/// The payload's media type.
pub const CONTENT_TYPE: &str = "Content-Type";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace state.
pub const TRACESTATE: &str = "tracestate";
/// W3C baggage, as far as it is passed on.
pub const BAGGAGE: &str = "baggage";
/// On a traced request: when it was sent, in Unix microseconds.
pub const REQUEST_SENT: &str = "Request-Sent";

/// How many messages a service may send before it is granted more. Services that do not know it ignore it.
pub const STREAM_WINDOW: &str = "Stream-Window";
/// The subject on which a service is granted more messages: each payload there is their number in decimal digits.
pub const STREAM_CREDIT: &str = "Stream-Credit";
/// The subject on which a service is told, by an empty message, that nobody waits for its answer any more.
pub const REQUEST_CANCEL: &str = "Request-Cancel";
/// On a reply: the number of the message in its stream; the next one has the next number.
pub const STREAM_SEQ: &str = "Nats-Stream-Seq";
/// On a reply: `true` on the last message of a stream.
pub const STREAM_END: &str = "Nats-Stream-End";

/// ADR-32: the error's text.
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
/// ADR-32: the error's number, 400 to 599.
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
