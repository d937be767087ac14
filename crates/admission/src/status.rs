//! Turns a failure into a gRPC status with google.rpc details. Must not reveal more than the failure does, nor exceed
//! the size that proxies accept: nginx reads a response's headers into 4 KiB, and answers 502 beyond.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};
use wire::Failure;
use wire::failure::Detail;
use wire::metadata::FIELD;

/// Maximum bytes of all headers or trailers of a response, as HTTP/2 counts them: nginx's buffer has 4 KiB
/// (`grpc_buffer_size`), including the frame heads. gRPC's C core and Java accept 8 KiB.
pub const RESPONSE: usize = (4 << 10) - 256;
/// The header with the delay before a retry, in milliseconds; negative: do not retry.
pub(crate) const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// The headers of a response, with the maximum length of each value other than message and details.
const FIELDS: [(&str, usize); 7] = [
    (":status", 3),
    ("content-type", 16),
    ("grpc-status", 2),
    ("grpc-message", 0),
    ("grpc-status-details-bin", 0),
    (PUSHBACK, 11),
    ("grpc-accept-encoding", 8),
];
/// The part of it for message and details.
const HEADERS: usize = RESPONSE - fixed();
/// Maximum bytes of a message; ours are far shorter, those of other services may not be.
const MESSAGE: usize = 1_024;
/// Maximum bytes of a message when little else fits, and when hardly anything does.
const MESSAGE_LEAST: usize = 256;
const MESSAGE_BARE: usize = 128;
/// Maximum bytes of a reason or a domain.
const NAME: usize = 128;
/// Maximum bytes of any other text, and when hardly anything fits.
const TEXT: usize = 256;
const TEXT_BARE: usize = 64;
/// Maximum entries of a list; usually fewer fit.
const ENTRIES: usize = 256;
/// Metadata that clients need to continue, kept whatever else is omitted.
const KEPT: [&str; 3] = ["order_id", "request_id", "resume_token"];

/// The cause of a failure: the source of its status, for the log only. It is never sent.
#[derive(Debug)]
pub struct Cause(Box<str>);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

/// The status for a failure, without retry pushback.
pub(crate) fn status(mut failure: Failure) -> Status {
    let cause = failure.cause.take();
    let response = failure.response.take();
    let mut status = told(failure);
    // Values of binary keys are in base64 already.
    if let Some(response) = response {
        append(status.metadata_mut().as_mut(), &response.trailers);
    }
    if let Some(cause) = cause {
        status.set_source(Arc::new(Cause(cause)));
    }
    status
}

/// Adds the metadata of a reply to headers or trailers, each value behind those that its key has.
pub fn append<'a>(headers: &mut HeaderMap, metadata: impl IntoIterator<Item = &'a (Box<str>, Box<str>)>) {
    for (key, value) in metadata {
        if let (Ok(key), Ok(value)) = (HeaderName::try_from(&**key), HeaderValue::try_from(&**value)) {
            headers.append(key, value);
        }
    }
}

/// The status with as much of the failure as fits.
fn told(mut failure: Failure) -> Status {
    cap(&mut failure.message, MESSAGE);
    failure.reason = short(failure.reason);
    failure.domain = short(failure.domain);
    failure.metadata.values_mut().for_each(|value| cap(value, TEXT));
    let most = entries(&failure).min(ENTRIES);
    let whole = build(&failure, most, TEXT);
    if fits(&whole) {
        return whole;
    }
    if !fits(&build(&failure, 0, TEXT)) {
        cap(&mut failure.message, MESSAGE_LEAST);
    }
    if !fits(&build(&failure, 0, TEXT)) {
        tracing::debug!(reason = %failure.reason, "the metadata of a failure is too large and was omitted");
        failure.metadata.retain(|key, _| KEPT.contains(&key.as_str()));
    }
    if !fits(&build(&failure, 0, TEXT)) {
        cap(&mut failure.message, MESSAGE_BARE);
        return build(&failure, 0, TEXT_BARE);
    }
    let counts: Vec<usize> = (1..=most).collect();
    let kept = counts.partition_point(|count| fits(&build(&failure, *count, TEXT)));
    build(&failure, kept, TEXT)
}

const fn fixed() -> usize {
    let (mut sum, mut at) = (0, 0);
    while at < FIELDS.len() {
        sum += FIELDS[at].0.len() + FIELDS[at].1 + FIELD;
        at += 1;
    }
    sum
}

fn fits(status: &Status) -> bool {
    size(status) <= HEADERS
}

/// The status with `kept` of the failure's violations, and a note on the omitted ones.
fn build(failure: &Failure, kept: usize, text: usize) -> Status {
    let mut metadata: HashMap<String, String> = failure.told().into_iter().collect();
    let mut message = Cow::Borrowed(failure.message.as_str());
    let omitted = entries(failure) - kept;
    if omitted > 0 {
        message = format!("{message}; and {omitted} more violations that do not fit here").into();
        metadata.insert("omitted".to_owned(), omitted.to_string());
    }
    let mut details = ErrorDetails::new();
    details.set_error_info(failure.reason.as_ref(), failure.domain.as_ref(), metadata);
    let mut room = kept;
    for detail in &failure.details {
        add(&mut details, detail, &mut room, text);
    }
    Status::with_error_details(failure.code, message, details)
}

fn add(details: &mut ErrorDetails, detail: &Detail, room: &mut usize, most: usize) {
    let clip = |text| begin(text, most);
    match detail {
        Detail::BadRequest(faults) => {
            for fault in faults.iter().take(*room) {
                details.add_bad_request_violation(clip(&fault.field), clip(&fault.description));
            }
            *room = room.saturating_sub(faults.len());
        }
        Detail::Precondition(violations) => {
            for violation in violations.iter().take(*room) {
                details.add_precondition_failure_violation(
                    clip(&violation.kind),
                    clip(&violation.subject),
                    clip(&violation.description),
                );
            }
            *room = room.saturating_sub(violations.len());
        }
        Detail::Resource { kind, name } => {
            details.set_resource_info(clip(kind), clip(name), "", "");
        }
        Detail::Retry(delay) => {
            details.set_retry_info(Some(*delay));
        }
        Detail::Quota { subject, description } => {
            if *room > 0 {
                details.add_quota_failure_violation(clip(subject), clip(description));
            }
            *room = room.saturating_sub(1);
        }
    }
}

/// The number of entries in a failure's lists.
fn entries(failure: &Failure) -> usize {
    let count = |detail: &Detail| match detail {
        Detail::BadRequest(faults) => faults.len(),
        Detail::Precondition(violations) => violations.len(),
        Detail::Quota { .. } => 1,
        Detail::Resource { .. } | Detail::Retry(_) => 0,
    };
    failure.details.iter().map(count).sum()
}

/// The size of a status in headers: the details in base64, the message percent-encoded in the worst case.
fn size(status: &Status) -> usize {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.,;:()[]/*+='".contains(&b);
    let message: usize = status.message().bytes().map(|b| if plain(b) { 1 } else { 3 }).sum();
    message + status.details().len().div_ceil(3) * 4
}

/// The beginning of a text, cut at a character boundary.
fn begin(text: &str, limit: usize) -> &str {
    let border = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..border.unwrap_or(0)]
}

fn cap(text: &mut String, limit: usize) {
    text.truncate(begin(text, limit).len());
}

fn short(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.len() <= NAME {
        return text;
    }
    let mut text = text.into_owned();
    cap(&mut text, NAME);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use wire::failure::Violation;
    use wire::{Delivered, FieldViolation, Reason};

    use super::*;

    fn faults(count: usize) -> Vec<FieldViolation> {
        (0..count)
            .map(|n| FieldViolation::new(format!("items[{n}].quantity"), "must be 1 to 1,000,000"))
            .collect()
    }

    #[test]
    fn every_reason_has_its_code_and_its_error_info() {
        for reason in Reason::ALL {
            let status = status(Failure::new(*reason, "so").delivered(Delivered::Unknown));
            let info = status.get_error_details().error_info().cloned().unwrap();
            assert_eq!(status.code(), reason.code());
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.name(), wire::failure::DOMAIN));
            assert_eq!(info.metadata["delivered"], "unknown");
        }
    }

    #[test]
    fn every_detail_arrives() {
        let violation =
            Violation { kind: "STOCK".into(), subject: "product/lamp".into(), description: "2".into() };
        let failure = Failure::invalid(faults(3))
            .detail(Detail::Precondition(vec![violation]))
            .detail(Detail::Resource { kind: "orders.v1.Order".into(), name: "x".into() })
            .detail(Detail::Retry(Duration::from_millis(500)))
            .detail(Detail::Quota { subject: "s".into(), description: "d".into() });
        let details = status(failure).get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[2].field, "items[2].quantity");
        assert_eq!(details.precondition_failure().unwrap().violations[0].subject, "product/lamp");
        assert_eq!(details.resource_info().unwrap().resource_name, "x");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_millis(500)));
        assert_eq!(details.quota_failure().unwrap().violations[0].subject, "s");
    }

    #[test]
    fn line_breaks_and_unicode_in_the_message_of_a_service_arrive() {
        // As gRPC's interop client sends it, in special_status_message.
        let body =
            r#"{"code": 2, "message": "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"}"#;
        let failure = Failure::from_service(500, "Unknown", body.as_bytes());
        let response = status(failure).into_http::<tonic::body::Body>();
        let read = Status::from_header_map(response.headers()).unwrap();
        let text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
        assert_eq!((read.code(), read.message()), (tonic::Code::Unknown, text));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let status = status(Failure::invalid(faults(500)));
        let details = status.get_error_details();
        let kept = details.bad_request().unwrap().field_violations.len();
        assert!(fits(&status) && kept > 20, "{kept} kept in {} bytes", size(&status));
        assert_eq!(details.error_info().unwrap().metadata["omitted"], (500 - kept).to_string());
        assert!(
            status.message().contains(&format!("and {} more violations", 500 - kept)),
            "{}",
            status.message()
        );
    }

    #[test]
    fn what_another_service_wrote_cannot_break_the_response() {
        let mut failure =
            Failure::new(Reason::Internal, "ü".repeat(100_000)).with("dump", "x".repeat(100_000));
        failure.reason = Cow::Owned("R".repeat(100_000));
        let status = status(failure.delivered(Delivered::Yes));
        assert!(fits(&status));
        assert_eq!(status.get_error_details().error_info().unwrap().metadata["dump"].len(), TEXT);
    }

    #[test]
    fn every_text_is_cut_and_what_clients_go_on_with_stays() {
        let long = "ü".repeat(500_000);
        let named = |name: &str| Detail::Resource { kind: "service".into(), name: name.into() };
        let quota = Detail::Quota { subject: long.clone(), description: long.clone() };
        let mut failure = Failure::not_found("service", &long).detail(named(&long)).with("dump", &long);
        failure.details.extend(std::iter::repeat_n(quota, 50));
        failure.metadata.extend((0..50).map(|n| (format!("more-{n}"), long.clone())));
        for key in ["order_id", "request_id", "resume_token"] {
            failure = failure.with(key, key);
        }
        let status = status(failure);
        let details = status.get_error_details();
        assert!(fits(&status), "{} bytes", size(&status));
        assert_eq!(details.resource_info().unwrap().resource_name.len(), TEXT);
        let metadata = &details.error_info().unwrap().metadata;
        for key in ["order_id", "request_id", "resume_token"] {
            assert_eq!(metadata[key], key);
        }
        assert_eq!(metadata["delivered"], "yes");
    }

    #[test]
    fn of_very_many_violations_as_many_are_named_as_fit() {
        let faults = std::iter::repeat_n(FieldViolation::new("a", "b"), 1_000_000).collect();
        let details = status(Failure::invalid(faults)).get_error_details();
        let kept = details.bad_request().unwrap().field_violations.len();
        assert!((100..=ENTRIES).contains(&kept), "{kept}");
        assert_eq!(details.error_info().unwrap().metadata["omitted"], (1_000_000 - kept).to_string());
    }

    /// Texts that grow when encoded: percent-encoded, in base64, or of several bytes per character.
    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof!["[a-z]", "[%\"<>`{}#? ]", "[\u{0}-\u{1f}]", "[\u{80}-\u{10ffff}]"];
        (piece, prop_oneof![0..40_usize, 100..300_usize, 2_000..9_000_usize])
            .prop_map(|(piece, times)| piece.repeat(times))
    }

    fn details() -> impl Strategy<Value = Vec<Detail>> {
        let violation = (text(), text(), text()).prop_map(|(kind, subject, description)| Violation {
            kind,
            subject,
            description,
        });
        let detail = prop_oneof![
            prop::collection::vec((text(), text()), 0..90).prop_map(|faults| Detail::BadRequest(
                faults
                    .into_iter()
                    .map(|(field, description)| FieldViolation { field, description })
                    .collect()
            )),
            prop::collection::vec(violation, 0..90).prop_map(Detail::Precondition),
            (text(), text()).prop_map(|(kind, name)| Detail::Resource { kind, name }),
            (text(), text()).prop_map(|(subject, description)| Detail::Quota { subject, description }),
            any::<u32>().prop_map(|millis| Detail::Retry(Duration::from_millis(millis.into()))),
        ];
        prop::collection::vec(detail, 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn every_response_fits_where_nginx_reads_it_and_says_why(
            reason in prop::sample::select(Reason::ALL),
            (message, domain, name) in (text(), text(), prop::option::of(text())),
            metadata in prop::collection::btree_map(text(), text(), 0..20),
            (details, order) in (details(), text()),
        ) {
            let mut failure = Failure::new(reason, message).with("order_id", &order).delivered(Delivered::Unknown);
            failure.metadata.extend(metadata);
            failure.details = details;
            if let Some(name) = name {
                (failure.reason, failure.domain) = (name.into(), domain.into());
            }
            let expected = begin(&failure.reason, NAME).to_owned();
            for status in [crate::status(failure.clone()), crate::pushback::answer(failure, true)] {
                let info = status.get_details_error_info().unwrap();
                prop_assert_eq!(&info.reason, &expected);
                prop_assert_eq!(&info.metadata["delivered"], "unknown");
                prop_assert_eq!(info.metadata["order_id"].as_str(), begin(&order, TEXT));
                let response = status.into_http::<tonic::body::Body>();
                let counted = |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + FIELD;
                let counted: usize = response.headers().iter().map(counted).sum();
                prop_assert!(counted + ":status".len() + 3 + FIELD <= RESPONSE, "{} bytes", counted);
            }
        }
    }
}
