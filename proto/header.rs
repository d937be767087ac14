//! Names of the headers that travel over NATS.

/// The caller's id of the request.
pub const REQUEST_ID: &str = "Request-Id";
/// When the answer stops being of use: unix time in milliseconds. Work that has not begun by then is refused.
pub const REQUEST_DEADLINE: &str = "Request-Deadline";
/// Who the gateway authenticated.
pub const PRINCIPAL: &str = "Principal";
/// The payload's media type.
pub const CONTENT_TYPE: &str = "Content-Type";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace state.
pub const TRACESTATE: &str = "tracestate";

/// ADR-32: the error's text.
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
/// ADR-32: the error's number, 400 to 599.
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";

/// On a stored event: which operation wrote it, so that its writer knows it again.
pub const OPERATION_ID: &str = "Operation-Id";
/// On an order event: the customer, percent-encoded.
pub const ORDER_CUSTOMER: &str = "Order-Customer";
/// On an order event: the status after it, as in `ORDER_STATUS_PENDING`.
pub const ORDER_STATUS: &str = "Order-Status";
/// On an order event but the first: the sequence of the order's first.
pub const ORDER_CREATED_SEQUENCE: &str = "Order-Created-Sequence";
