//! Tells client libraries whether to retry a failed call: `grpc-retry-pushback-ms` in the trailers. Every retry policy
//! obeys it; none reads `RetryInfo` or `delivered`. Must not depend on what a call is about.

use std::time::Duration;

use tonic::Status;
use tonic::metadata::MetadataValue;
use wire::failure::Code;
use wire::{Delivered, Failure};

use crate::status::PUSHBACK;

/// Libraries read 32 bits.
const LONGEST: u128 = i32::MAX as u128;

/// The status for a failure of a call that is not idempotent.
pub fn status(failure: Failure) -> Status {
    answer(failure, false)
}

/// The status for a failure. `repeatable`: the call is idempotent.
pub fn answer(failure: Failure, repeatable: bool) -> Status {
    let pushback = pushback(&failure, repeatable);
    let mut status = crate::status::status(failure);
    if let Some(pushback) = pushback {
        status.metadata_mut().insert(PUSHBACK, MetadataValue::from(pushback));
    }
    status
}

/// The trailer's value; `None` if a retry is harmless and may help, and the library's own backoff is enough.
fn pushback(failure: &Failure, repeatable: bool) -> Option<i64> {
    let delivered = failure.certainty();
    match failure.retry_delay() {
        // A retry could execute the call twice.
        _ if delivered == Delivered::Unknown && !repeatable => Some(-1),
        Some(delay) => Some(millis(delay)),
        None if passes(failure.code) && (repeatable || delivered == Delivered::No) => None,
        // A retry would fail the same way.
        None => Some(-1),
    }
}

/// Whether a status code stands for a transient error.
fn passes(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

fn millis(delay: Duration) -> i64 {
    i64::try_from(delay.as_millis().min(LONGEST)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use wire::Reason;

    use super::*;

    fn told(failure: Failure, repeatable: bool) -> Option<String> {
        let headers = answer(failure, repeatable).into_http::<tonic::body::Body>().headers().clone();
        Some(headers.get(PUSHBACK)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_call_whose_outcome_is_unknown_is_repeated_only_where_that_does_no_harm() {
        for reason in Reason::ALL {
            for delivered in [Some(Delivered::Unknown), None] {
                let failure = |after: Option<u64>| {
                    let mut failure = Failure::new(*reason, "so");
                    if let Some(delivered) = delivered {
                        failure = failure.delivered(delivered);
                    }
                    after.into_iter().map(Duration::from_millis).fold(failure, Failure::retry_after)
                };
                assert_eq!(told(failure(Some(500)), false).as_deref(), Some("-1"), "{reason}");
                assert_eq!(told(failure(None), false).as_deref(), Some("-1"), "{reason}");
                assert_eq!(told(failure(Some(500)), true).as_deref(), Some("500"), "{reason}");
            }
        }
    }

    #[test]
    fn what_was_not_done_is_repeated_when_the_failure_says_so_and_a_final_answer_is_not() {
        let no = |reason| Failure::new(reason, "so").delivered(Delivered::No);
        for repeatable in [false, true] {
            let away = no(Reason::NoResponders).retry_after(Duration::from_millis(500));
            assert_eq!(told(away, repeatable).as_deref(), Some("500"));
            assert_eq!(told(no(Reason::Timeout), repeatable), None);
            for last in [Reason::PermissionDenied, Reason::PayloadTooLarge, Reason::InvalidRequest] {
                assert_eq!(told(no(last), repeatable).as_deref(), Some("-1"), "{last}");
            }
        }
    }

    #[test]
    fn a_service_that_only_says_that_it_is_away_may_have_done_some_of_it() {
        let away = || Failure::from_service(503, "away", b"");
        assert_eq!(told(away(), false).as_deref(), Some("-1"));
        assert_eq!(told(away(), true), None);
    }

    #[test]
    fn a_delay_is_one_that_libraries_can_read() {
        let after = |delay| told(Failure::new(Reason::Draining, "so").retry_after(delay), true).unwrap();
        assert_eq!(after(Duration::from_micros(900)), "0");
        assert_eq!(after(Duration::MAX), i32::MAX.to_string());
    }
}
