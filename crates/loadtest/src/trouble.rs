//! A failed call, and whether to retry it or to accept the result. Must not depend on what the call was for.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use contract::OrderReason;
use server::client::told;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use wire::Reason;

/// The reason of a call that reached no server, or lost its connection.
pub(crate) const TRANSPORT: &str = "TRANSPORT";

/// The error of a failed call.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    code: Code,
    reason: String,
    message: String,
    fields: Vec<String>,
    retry: Option<Duration>,
}

/// What a caller does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Transient: make the same call again, with the same request_id.
    Repeat,
    /// The request was understood and refused.
    Refused,
    /// The request has invalid fields.
    Rejected,
    /// A permanent error.
    Failed,
}

impl Trouble {
    /// Reads a status with its details.
    pub(crate) fn of(status: &Status) -> Trouble {
        let details = status.get_error_details();
        let reason = match details.error_info() {
            Some(info) => info.reason.clone(),
            // Every error of the server has an ErrorInfo. A status with a source comes from the local transport.
            None if status.source().is_some() => TRANSPORT.to_owned(),
            None => String::new(),
        };
        let fields = details.bad_request().map(|bad| &bad.field_violations).into_iter().flatten();
        Trouble {
            code: status.code(),
            reason: reason.clone(),
            message: match status.source() {
                Some(source) if reason == TRANSPORT => told::chain(source),
                _ => status.message().to_owned(),
            },
            fields: fields.map(|violation| violation.field.clone()).collect(),
            retry: details.retry_info().and_then(|info| info.retry_delay),
        }
    }

    /// No reply within the attempt's time.
    pub(crate) fn late(limit: Duration) -> Trouble {
        Trouble {
            code: Code::DeadlineExceeded,
            reason: "NO_ANSWER".to_owned(),
            message: format!("no reply within {} ms", limit.as_millis()),
            fields: Vec::new(),
            retry: None,
        }
    }

    /// A reply that violates the contract.
    pub(crate) fn nonsense(message: impl Into<String>) -> Trouble {
        Trouble {
            code: Code::Internal,
            reason: Reason::ContractViolation.name().to_owned(),
            message: message.into(),
            fields: Vec::new(),
            retry: None,
        }
    }

    /// The same error with another message.
    #[must_use]
    pub(crate) fn saying(self, message: String) -> Trouble {
        Trouble { message, ..self }
    }

    /// Whether it comes from the server, whose errors always have a reason.
    pub(crate) fn answered(&self) -> bool {
        !["", TRANSPORT, "NO_ANSWER"].contains(&self.reason.as_str())
    }

    /// What to do with it.
    pub(crate) fn verdict(&self) -> Verdict {
        match self.code {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Verdict::Repeat,
            Code::Aborted if self.is(OrderReason::ReservationExpired) || self.is(Reason::Contention) => {
                Verdict::Repeat
            }
            Code::ResourceExhausted if self.retry.is_some() => Verdict::Repeat,
            // Broken connections have these codes. Those of the server carry a reason.
            Code::Unknown | Code::Internal if self.reason.is_empty() || self.reason == TRANSPORT => {
                Verdict::Repeat
            }
            Code::InvalidArgument if !self.fields.is_empty() => Verdict::Rejected,
            Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted | Code::NotFound => {
                Verdict::Refused
            }
            _ => Verdict::Failed,
        }
    }

    fn is(&self, reason: impl wire::ErrorReason) -> bool {
        self.reason == reason.name()
    }

    /// The reason's name, or the code's if there is none.
    pub(crate) fn reason(&self) -> String {
        if self.reason.is_empty() { format!("{:?}", self.code) } else { self.reason.clone() }
    }

    /// Code and reason, for counting.
    pub(crate) fn kind(&self) -> String {
        match self.reason.as_str() {
            "" => format!("{:?}", self.code),
            reason => format!("{:?} {reason}", self.code),
        }
    }

    /// The paths of the invalid fields.
    pub(crate) fn fields(&self) -> &[String] {
        &self.fields
    }

    /// The delay that the server asks for.
    pub(crate) fn retry(&self) -> Option<Duration> {
        self.retry
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind(), self.message)
    }
}

impl std::error::Error for Trouble {}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn verdict(code: Code, change: impl Fn(&mut ErrorDetails)) -> Verdict {
        let mut details = ErrorDetails::new();
        change(&mut details);
        Trouble::of(&Status::with_error_details(code, "", details)).verdict()
    }

    fn because(reason: impl wire::ErrorReason) -> Verdict {
        verdict(reason.code(), |details| {
            details.set_error_info(reason.name(), wire::failure::DOMAIN, []);
        })
    }

    #[test]
    fn what_passes_by_itself_is_repeated() {
        for reason in [Reason::NoResponders, Reason::OutcomeUnknown, Reason::Contention, Reason::Timeout] {
            assert_eq!(because(reason), Verdict::Repeat, "{reason}");
        }
        for reason in [OrderReason::IndexBuilding, OrderReason::ReservationExpired] {
            assert_eq!(because(reason), Verdict::Repeat, "{reason}");
        }
    }

    #[test]
    fn an_answer_is_not_repeated() {
        for reason in
            [OrderReason::InsufficientStock, OrderReason::RequestIdReused, OrderReason::EtagMismatch]
        {
            assert_eq!(because(reason), Verdict::Refused, "{reason}");
        }
        for reason in [Reason::Internal, Reason::PayloadTooLarge, Reason::StorageFull] {
            assert_eq!(because(reason), Verdict::Failed, "{reason}");
        }
    }

    #[test]
    fn an_exhausted_resource_is_tried_again_where_the_server_says_when() {
        let wait = Duration::from_millis(300);
        assert_eq!(
            verdict(Code::ResourceExhausted, |details| {
                details.set_retry_info(Some(wait));
            }),
            Verdict::Repeat
        );
        assert_eq!(verdict(Code::ResourceExhausted, |_| ()), Verdict::Failed);
    }

    #[test]
    fn bad_fields_reject_the_request() {
        let rejected = verdict(Code::InvalidArgument, |details| {
            details.add_bad_request_violation("items[3].quantity", "must be 1 to 1,000,000");
        });
        assert_eq!(rejected, Verdict::Rejected);
    }

    #[test]
    fn a_broken_connection_is_repeated_and_named() {
        let broken = Trouble::of(&Status::from_error("the connection was reset".into()));
        assert_eq!((broken.verdict(), broken.reason().as_str()), (Verdict::Repeat, "TRANSPORT"));
    }
}
