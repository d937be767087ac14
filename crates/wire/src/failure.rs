//! Failures: what went wrong, as a fact that callers can branch on. The table from a reason to a status code is
//! here, once; how a failure is written on a wire is not (`status` does JSON, crates/admission does gRPC).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

pub use tonic::Code;

use crate::metadata::ResponseMetadata;
pub use crate::reason::DOMAIN;
use crate::reason::{ErrorReason, Reason};

/// The entry of the metadata that tells on the wire whether the work may have been done.
pub(crate) const DELIVERED: &str = "delivered";

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

/// Whether the work may have been done; docs/errors.md tells callers the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Nothing was done, and nothing will be, whether or not the request reached a service.
    No,
    /// The request was worked on, and the failure is the result; it says whether anything changed.
    Yes,
    /// It may have been done, or may be done yet.
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

    /// The value that is written so; what nobody knows is unknown.
    pub(crate) fn parse(text: &str) -> Delivered {
        let known = [Delivered::No, Delivered::Yes].into_iter().find(|known| known.name() == text);
        known.unwrap_or(Delivered::Unknown)
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

/// A field that breaks a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path, such as `items[3].quantity`.
    pub field: String,
    /// What it has to be.
    pub description: String,
}

impl FieldViolation {
    /// A violation of a field.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> FieldViolation {
        FieldViolation { field: field.into(), description: description.into() }
    }
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
///
/// ```
/// use std::time::Duration;
/// use wire::failure::Code;
/// use wire::{Delivered, Failure, Reason};
///
/// // A service refuses a request before it has done anything.
/// let failure = Failure::new(Reason::Overloaded, "the catalogue is being rebuilt")
///     .delivered(Delivered::No)
///     .retry_after(Duration::from_secs(2))
///     .because("the index has 3 of 8 parts");
/// assert_eq!(failure.code, Code::ResourceExhausted);
///
/// // It answers with this body and, in the headers of ADR-32, number and text. The cause stays behind.
/// let (number, body) = (failure.number(), failure.to_json());
/// let read = Failure::from_service(number, &failure.message, &body);
/// assert_eq!((read.certainty(), read.retry_delay()), (Delivered::No, Some(Duration::from_secs(2))));
/// assert!(read.is(Reason::Overloaded) && read.cause.is_none());
/// ```
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
    /// Whether the work may have been done; on the wire the entry `delivered` of the metadata.
    pub delivered: Option<Delivered>,
    /// Data for programs.
    pub metadata: BTreeMap<String, String>,
    /// More about it.
    pub details: Vec<Detail>,
    /// What the headers of the service's reply add, where a route passes them on: its trailers. Not part of its JSON.
    pub response: Option<Box<ResponseMetadata>>,
    /// The cause, logged once where the call is answered. Never sent.
    pub cause: Option<Box<str>>,
}

impl Failure {
    /// A failure with this reason.
    pub fn new(reason: impl ErrorReason, message: impl Into<String>) -> Failure {
        Failure {
            code: reason.code(),
            reason: Cow::Borrowed(reason.name()),
            domain: Cow::Borrowed(DOMAIN),
            message: message.into(),
            delivered: None,
            metadata: BTreeMap::new(),
            details: Vec::new(),
            response: None,
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

    /// Sets whether the work may have been done.
    #[must_use]
    pub fn delivered(mut self, delivered: Delivered) -> Failure {
        self.delivered = Some(delivered);
        self
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

    /// Whether the work may have been done; unknown where nothing tells.
    pub fn certainty(&self) -> Delivered {
        self.delivered.unwrap_or(Delivered::Unknown)
    }

    /// The metadata as it is on the wire, where `delivered` is an entry of it.
    pub fn told(&self) -> BTreeMap<String, String> {
        let mut told = self.metadata.clone();
        told.extend(self.delivered.map(|delivered| (DELIVERED.to_owned(), delivered.name().to_owned())));
        told
    }

    /// When to repeat, if the failure tells.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.details.iter().find_map(|detail| match detail {
            Detail::Retry(delay) => Some(*delay),
            _ => None,
        })
    }

    /// Whether it has this reason, in our domain.
    pub fn is(&self, reason: impl ErrorReason) -> bool {
        self.domain == DOMAIN && self.reason == reason.name()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Failure {}
