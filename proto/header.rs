//! Names of the headers on NATS messages.

/// The caller's id of the request.
pub const REQUEST_ID: &str = "Request-Id";
/// When the answer stops being useful: Unix time in milliseconds. Work that has not begun by then is refused.
pub const REQUEST_DEADLINE: &str = "Request-Deadline";
/// For how many milliseconds after sending the answer is useful: the same as `Request-Deadline`, but independent of the
/// clocks of sender and receiver.
pub const REQUEST_TIMEOUT: &str = "Request-Timeout";
/// The principal that the gateway authenticated.
pub const PRINCIPAL: &str = "Principal";
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

/// ADR-32: the error's text.
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
/// ADR-32: the error's number, 400 to 599.
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";

/// On a stored event: which operation wrote it, so that its writer recognises it.
pub const OPERATION_ID: &str = "Operation-Id";
/// On an order event: the customer, percent-encoded.
pub const ORDER_CUSTOMER: &str = "Order-Customer";
/// On an order event: the status after it, such as `ORDER_STATUS_PENDING`.
pub const ORDER_STATUS: &str = "Order-Status";
/// On every order event but the first: the sequence of the order's first event.
pub const ORDER_CREATED_SEQUENCE: &str = "Order-Created-Sequence";

/// On a dead letter: why the event could not be processed.
pub const DEAD_LETTER_ERROR: &str = "Dead-Letter-Error";
/// On a dead letter: the event's subject.
pub const DEAD_LETTER_SUBJECT: &str = "Dead-Letter-Subject";
/// On a dead letter: the event's sequence on the stream ORDERS.
pub const DEAD_LETTER_SEQUENCE: &str = "Dead-Letter-Sequence";
/// On the record of a discarded dead letter: its former id.
pub const DEAD_LETTER_ID: &str = "Dead-Letter-Id";
/// On the record of a discarded dead letter: why it was discarded, percent-encoded.
pub const DISCARD_REASON: &str = "Discard-Reason";
/// On the record of a discarded dead letter: who discarded it, percent-encoded.
pub const DISCARDED_BY: &str = "Discarded-By";
