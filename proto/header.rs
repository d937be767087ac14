//! Names of the headers of stored events and dead letters, beside those of every request.

pub use wire::header::*;

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
