//! Failures: what went wrong, as a fact that callers can branch on. The table from a reason to a status code is
//! here, once; how a failure is written on a wire is not (`status` does JSON, the gateway's edge does gRPC).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

pub use tonic::Code;

use crate::FieldViolation;

/// The domain of the reasons that this system gives.
pub const DOMAIN: &str = "orders.gateway";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $code:ident;)*) => {
        /// Why a call failed. Stable: clients branch on the name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The name, as in google.rpc.ErrorInfo.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// The status code.
            pub const fn code(self) -> Code {
                match self { $(Reason::$name => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// Fields are missing or malformed; BadRequest lists them all.
    InvalidRequest = "INVALID_REQUEST" => InvalidArgument;
    /// Less stock than requested; PreconditionFailure lists the products.
    InsufficientStock = "INSUFFICIENT_STOCK" => FailedPrecondition;
    /// The status machine does not allow this step.
    IllegalTransition = "ILLEGAL_TRANSITION" => FailedPrecondition;
    /// The order was shipped or cancelled: its id accepts no new reservation.
    OrderFinished = "ORDER_FINISHED" => FailedPrecondition;
    /// The order was recorded: cancel it instead of releasing its stock.
    OrderExists = "ORDER_EXISTS" => FailedPrecondition;
    /// Stock on hand would fall below what is reserved.
    BelowReserved = "BELOW_RESERVED" => FailedPrecondition;
    /// Stock on hand would exceed the limit.
    AboveLimit = "ABOVE_LIMIT" => FailedPrecondition;
    /// An event or the record contradicts the rules of the stock: an operator has to look.
    Unsettled = "UNSETTLED" => FailedPrecondition;
    /// The order changed since its etag was read.
    EtagMismatch = "ETAG_MISMATCH" => Aborted;
    /// The reservation expired before the order was recorded: repeat with the same request_id.
    ReservationExpired = "RESERVATION_EXPIRED" => Aborted;
    /// Concurrent changes prevented this one: repeat.
    Contention = "CONTENTION" => Aborted;
    /// The caller is unknown: no credential, or an invalid one.
    Unauthenticated = "UNAUTHENTICATED" => Unauthenticated;
    /// The caller is known and may not do this.
    PermissionDenied = "PERMISSION_DENIED" => PermissionDenied;
    /// The keys that verify tokens have not been fetched yet.
    KeysUnavailable = "KEYS_UNAVAILABLE" => Unavailable;
    /// The caller has used up its share of a limit, or its rate limit.
    QuotaExceeded = "QUOTA_EXCEEDED" => ResourceExhausted;
    /// No such order or product.
    NotFound = "NOT_FOUND" => NotFound;
    /// The request_id was used with other content.
    RequestIdReused = "REQUEST_ID_REUSED" => AlreadyExists;
    /// No responders on the subject; nothing was delivered.
    NoResponders = "NO_RESPONDERS" => Unavailable;
    /// A stream captures the subject and would answer in the service's place; nothing was sent.
    SubjectCaptured = "SUBJECT_CAPTURED" => Unavailable;
    /// There is no connection to NATS.
    NatsDisconnected = "NATS_DISCONNECTED" => Unavailable;
    /// The stream is missing or has no leader.
    StorageUnavailable = "STORAGE_UNAVAILABLE" => Unavailable;
    /// A storage limit of JetStream is reached.
    StorageFull = "STORAGE_FULL" => ResourceExhausted;
    /// The last entry of this order's record cannot be read: an operator has to look.
    RecordUnreadable = "RECORD_UNREADABLE" => DataLoss;
    /// It may or may not have happened: repeat with the same request_id.
    OutcomeUnknown = "OUTCOME_UNKNOWN" => Unavailable;
    /// The gateway is still building its index of orders.
    IndexBuilding = "INDEX_BUILDING" => Unavailable;
    /// The process is shutting down: call another one.
    Draining = "DRAINING" => Unavailable;
    /// The client of a watch fell behind.
    SlowWatcher = "SLOW_WATCHER" => Unavailable;
    /// No answer in time.
    Timeout = "TIMEOUT" => DeadlineExceeded;
    /// The caller's own deadline passed.
    Deadline = "DEADLINE" => DeadlineExceeded;
    /// No service here has such an rpc.
    UnknownRpc = "UNKNOWN_RPC" => Unimplemented;
    /// The rest of a request did not arrive in time.
    RequestIncomplete = "REQUEST_INCOMPLETE" => Cancelled;
    /// A request's messages are compressed in an unsupported way; `grpc-accept-encoding` lists the supported ones.
    UnsupportedEncoding = "UNSUPPORTED_ENCODING" => Unimplemented;
    /// A request or reply is over the size limit.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE" => ResourceExhausted;
    /// A limit on what is kept is reached: products, adjustments or reservations.
    LimitReached = "LIMIT_REACHED" => ResourceExhausted;
    /// A concurrency limit is reached.
    Overloaded = "OVERLOADED" => ResourceExhausted;
    /// A service behind the gateway sent an answer that the contract does not allow.
    ContractViolation = "CONTRACT_VIOLATION" => Internal;
    /// The gateway's NATS user has no permission for the subject.
    GatewayNotPermitted = "GATEWAY_NOT_PERMITTED" => Internal;
    /// An internal error.
    Internal = "INTERNAL" => Internal;
}

/// Whether an operator has to know of failures with this code.
pub const fn ours(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unknown
            | Code::DataLoss
            | Code::ResourceExhausted
    )
}

/// A status code's name, as google.rpc.Code has it.
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The reason as a metric label: a closed set, whatever services behind the gateway send.
pub fn label(domain: &str, reason: &str) -> &'static str {
    let ours = Reason::ALL.iter().map(|known| known.name()).find(|known| *known == reason);
    ours.filter(|_| domain == DOMAIN).unwrap_or("OTHER")
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the work may have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Certainly not.
    No,
    /// It reached the service.
    Yes,
    /// Unknown.
    Unknown,
}

impl Delivered {
    /// The value of `delivered` in ErrorInfo's metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Delivered::No => "no",
            Delivered::Yes => "yes",
            Delivered::Unknown => "unknown",
        }
    }
}

/// More about a failure: the messages of google/rpc/error_details.proto that this system uses.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    /// Bad fields.
    BadRequest(Vec<FieldViolation>),
    /// Conditions that do not hold.
    Precondition(Vec<Violation>),
    /// What was not found.
    Resource {
        /// Its type, such as `orders.v1.Order`.
        kind: String,
        /// Its id.
        name: String,
    },
    /// When to repeat.
    Retry(Duration),
    /// A limit that is reached.
    Quota {
        /// The owner of the limit.
        subject: String,
        /// The limit.
        description: String,
    },
}

/// A condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its kind, such as `STOCK`.
    pub kind: String,
    /// Its subject, such as `products/lamp`.
    pub subject: String,
    /// What would have to change.
    pub description: String,
}

/// A failed call. Everything in it but the cause may reach the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The status code.
    pub code: Code,
    /// The reason's name: ours, or that of the service that refused.
    pub reason: Cow<'static, str>,
    /// The domain of the reason.
    pub domain: Cow<'static, str>,
    /// The message for people.
    pub message: String,
    /// Data for programs, `delivered` included.
    pub metadata: BTreeMap<String, String>,
    /// More about it.
    pub details: Vec<Detail>,
    /// The cause, logged once where the call is answered. Never sent.
    pub cause: Option<Box<str>>,
}

impl Failure {
    /// A failure for one of our reasons.
    pub fn new(reason: Reason, message: impl Into<String>) -> Failure {
        Failure {
            code: reason.code(),
            reason: Cow::Borrowed(reason.name()),
            domain: Cow::Borrowed(DOMAIN),
            message: message.into(),
            metadata: BTreeMap::new(),
            details: Vec::new(),
            cause: None,
        }
    }

    /// An invalid request, with every bad field.
    pub fn invalid(faults: Vec<FieldViolation>) -> Failure {
        let first =
            faults.first().map(|fault| format!("{}: {}", fault.field, fault.description)).unwrap_or_default();
        let message = match faults.len() {
            0 | 1 => first,
            more => format!("{first} (and {} more)", more - 1),
        };
        Failure::new(Reason::InvalidRequest, message)
            .delivered(Delivered::No)
            .detail(Detail::BadRequest(faults))
    }

    /// Something that does not exist, by its type and id.
    pub fn not_found(kind: &str, name: &str) -> Failure {
        Failure::new(Reason::NotFound, format!("there is no {kind} {name}"))
            .delivered(Delivered::Yes)
            .detail(Detail::Resource { kind: kind.to_owned(), name: name.to_owned() })
    }

    /// Refused at once: `subject` has reached a limit.
    pub fn overloaded(subject: &str, limit: &str, retry_after: Duration) -> Failure {
        Failure::new(Reason::Overloaded, format!("{subject} is overloaded: {limit}"))
            .delivered(Delivered::No)
            .retry_after(retry_after)
            .detail(Detail::Quota { subject: subject.to_owned(), description: limit.to_owned() })
    }

    /// A message over a limit, in bytes.
    pub fn too_large(what: &str, size: usize, limit: usize) -> Failure {
        Failure::new(Reason::PayloadTooLarge, format!("{what} has {size} bytes, over the limit of {limit}"))
            .with("size", size.to_string())
            .with("limit", limit.to_string())
    }

    /// Too little or too much stock: products, and what is wrong with each.
    pub fn stock(reason: Reason, products: impl IntoIterator<Item = (String, String)>) -> Failure {
        let violation = |(product, description): (String, String)| Violation {
            kind: "STOCK".to_owned(),
            subject: format!("products/{product}"),
            description,
        };
        let violations: Vec<Violation> = products.into_iter().map(violation).collect();
        let first = violations.first().map_or_else(
            || "the items are not available together".to_owned(),
            |first| format!("{}: {}", first.subject.trim_start_matches("products/"), first.description),
        );
        let message = match violations.len() {
            0 | 1 => first,
            more => format!("{first} (and {} more)", more - 1),
        };
        Failure::new(reason, message).detail(Detail::Precondition(violations))
    }

    /// Sets whether the work may have been done.
    #[must_use]
    pub fn delivered(self, delivered: Delivered) -> Failure {
        self.with("delivered", delivered.name())
    }

    /// Sets when to repeat.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Failure {
        self.detail(Detail::Retry(delay))
    }

    /// Adds a detail.
    #[must_use]
    pub fn detail(mut self, detail: Detail) -> Failure {
        self.details.push(detail);
        self
    }

    /// Adds an entry to the metadata.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Failure {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Sets the cause, for the log alone. The first cause is kept: it is the nearest to the fault.
    #[must_use]
    pub fn because(mut self, cause: impl std::fmt::Display) -> Failure {
        self.cause.get_or_insert_with(|| cause.to_string().into());
        self
    }

    /// The failure with its cause, for a log.
    pub fn logged(&self) -> String {
        self.cause.as_ref().map_or_else(|| self.to_string(), |cause| format!("{self} ({cause})"))
    }

    /// Whether the work may have been done; unknown if the metadata does not tell.
    pub fn certainty(&self) -> Delivered {
        let told = self.metadata.get("delivered").map(String::as_str);
        let known = [Delivered::No, Delivered::Yes].into_iter().find(|known| told == Some(known.name()));
        known.unwrap_or(Delivered::Unknown)
    }

    /// When to repeat, if the failure tells.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.details.iter().find_map(|detail| match detail {
            Detail::Retry(delay) => Some(*delay),
            _ => None,
        })
    }

    /// Whether it has this reason, in our domain.
    pub fn is(&self, reason: Reason) -> bool {
        self.domain == DOMAIN && self.reason == reason.name()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    const ERRORS: &str = include_str!("../docs/errors.md");

    #[test]
    fn the_document_of_errors_has_every_reason_with_its_status() {
        let rows = || ERRORS.lines().filter(|line| line.starts_with("| `"));
        for reason in Reason::ALL {
            let name = format!("`{}`", reason.name());
            let row = rows().find(|row| row.split('|').nth(1).is_some_and(|cell| cell.contains(&name)));
            let code = row.and_then(|row| row.split('|').nth(2)).map(str::trim);
            assert_eq!(
                code.map(|code| code.replace('_', "").to_lowercase()),
                Some(format!("{:?}", reason.code()).to_lowercase()),
                "{reason}"
            );
        }
    }
}
