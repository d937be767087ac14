//! What a failed call has to tell: its code, reason, `delivered`, and details.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Asserts a call's failure, and returns its details for further checks.
#[track_caller]
pub fn assert_failure<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
    delivered: &str,
) -> ErrorDetails {
    let status = result.expect_err("a failure");
    let details = status.get_error_details();
    let info = details.error_info().cloned().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    let marks = info.metadata.get("delivered").map_or("", String::as_str);
    assert_eq!((status.code(), info.reason.as_str(), marks), (code, reason, delivered), "{status:?}");
    assert!(!info.domain.is_empty() && !status.message().contains("$JS"), "{status:?}");
    details
}

#[track_caller]
pub fn assert_retryable(details: &ErrorDetails) {
    assert!(details.retry_info().is_some_and(|retry| retry.retry_delay.is_some()), "{details:?}");
}
