//! Decides which HTTP requests are gRPC calls, and checks a call's headers before it is read or executed. Must not look
//! at paths or messages.

use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tonic::body::Body;
use wire::metadata::FIELD;
use wire::{Delivered, Failure, FieldViolation, Reason};

use crate::status;

static GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The encoding of uncompressed messages, the only one accepted.
/// What the paths of health begin with.
pub(crate) const HEALTH: &str = "/grpc.health.v1.Health/";
const IDENTITY: &str = "identity";
/// The content types of calls. The part after `+` names the message format; the default is protobuf.
const CALLS: [&str; 2] = ["application/grpc", "application/grpc+proto"];
/// Maximum digits of a `grpc-timeout`.
const DIGITS: usize = 8;

/// When a call arrived, and its caller's timeout, which counts from the headers even if the message arrives later.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// When its headers arrived.
    pub at: Instant,
    /// The caller's timeout; `None` for no limit.
    pub asked: Option<Duration>,
}

impl Arrival {
    /// A call that arrives now, without a timeout.
    pub fn now() -> Arrival {
        Arrival { at: Instant::now(), asked: None }
    }
}

/// What admission needs to know about a call's headers, found in one pass.
#[derive(Default)]
pub(crate) struct Told<'a> {
    /// Their size as HTTP/2 counts it.
    pub(crate) listed: usize,
    timeout: Option<&'a HeaderValue>,
    /// Whether it occurs more than once.
    several: bool,
    /// An encoding that is not accepted.
    encoding: Option<&'a HeaderValue>,
}

impl<'a> Told<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Told<'a> {
        let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(IDENTITY.as_bytes());
        let mut told = Told::default();
        for (name, value) in headers {
            told.listed += name.as_str().len() + value.len() + FIELD;
            if *name == GRPC_TIMEOUT {
                told.several |= told.timeout.is_some();
                told.timeout = told.timeout.or(Some(value));
            } else if *name == GRPC_ENCODING && !plain(value) {
                told.encoding = told.encoding.or(Some(value));
            }
        }
        told
    }

    /// The caller's timeout; `None` for no limit.
    ///
    /// # Errors
    ///
    /// INVALID_REQUEST if the header is malformed or occurs more than once. A malformed timeout must not become a call
    /// without one.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, Failure> {
        if self.several {
            return Err(malformed(&GRPC_TIMEOUT, "must be given once"));
        }
        let why = "must be 1 to 8 digits and a unit, one of H, M, S, m, u, n, as in 500m";
        let read = |value: &HeaderValue| {
            value.to_str().ok().and_then(duration).ok_or_else(|| malformed(&GRPC_TIMEOUT, why))
        };
        self.timeout.map(read).transpose()
    }

    /// The response that refuses a call with compressed messages.
    pub(crate) fn compressed(&self) -> Option<Response<Body>> {
        let encoding = self.encoding?;
        let why =
            "compressed messages are not accepted: send them without compression (grpc-encoding: identity)";
        let failure = Failure::new(Reason::UnsupportedEncoding, why)
            .with("grpc-encoding", String::from_utf8_lossy(encoding.as_bytes()))
            .delivered(Delivered::No);
        let mut response = status(failure).into_http();
        response.headers_mut().insert(GRPC_ACCEPT_ENCODING.clone(), HeaderValue::from_static(IDENTITY));
        Some(response)
    }
}

/// The response to a request that is not a gRPC call. Browsers can send such requests to other sites without a
/// preflight, so they must have no effect.
pub fn refused(method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
    if *method != Method::POST {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "gRPC calls are POST requests\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        if *method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        return Some(response);
    }
    let why = "gRPC calls have the content-type application/grpc or application/grpc+proto\n";
    (!is_call(headers)).then(|| plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))
}

fn is_call(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    // The form that nearly all clients use.
    if only == CALLS[0] {
        return true;
    }
    let Ok(text) = only.to_str() else { return false };
    let essence = text.split_once(';').map_or(text, |(essence, _)| essence).trim();
    CALLS.iter().any(|call| call.eq_ignore_ascii_case(essence))
}

fn plain(code: StatusCode, why: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(why)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The caller's timeout in these headers; `None` for no limit.
///
/// # Errors
///
/// INVALID_REQUEST, not delivered: the header is malformed or occurs more than once.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    Told::of(headers).timeout()
}

/// The time within which a call must be answered in any case: after its own deadline, and before the library's timer,
/// which would answer CANCELLED.
pub fn latest(asked: Duration) -> Duration {
    asked.saturating_sub(margin(asked) / 2)
}

/// How much earlier a call's own deadline is than its caller's: 5 %, 2 to 250 ms.
pub fn margin(timeout: Duration) -> Duration {
    (timeout / 20).clamp(Duration::from_millis(2), Duration::from_millis(250))
}

fn malformed(header: &HeaderName, why: &str) -> Failure {
    Failure::invalid(vec![FieldViolation::new(header.as_str(), why)]).with("header", header.as_str())
}

/// The wire format of grpc-timeout: at most eight digits and a unit.
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=DIGITS).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let value = |value: &&str| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in values.iter().map(value) {
            headers.append(name, value);
        }
        headers
    }

    fn code(method: Method, types: &[&str]) -> u16 {
        refused(&method, &headers("content-type", types)).map_or(200, |response| response.status().as_u16())
    }

    #[test]
    fn only_a_post_of_grpc_is_a_call() {
        for good in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC",
            "application/grpc; charset=utf-8",
            "application/grpc+proto;q=1",
            "application/grpc ;x",
        ] {
            assert_eq!(code(Method::POST, &[good]), 200, "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpc+json",
            "application/grpcx",
            "application/json",
            "application/proto",
            "multipart/form-data; boundary=application/grpc",
            "text/plain;application/grpc",
            "\u{fc}",
        ] {
            assert_eq!(code(Method::POST, &[bad]), 415, "{bad}");
        }
        assert_eq!(code(Method::POST, &[]), 415);
        assert_eq!(code(Method::POST, &["application/grpc", "text/plain"]), 415);
        for method in
            [Method::GET, Method::HEAD, Method::PUT, Method::OPTIONS, Method::DELETE, Method::CONNECT]
        {
            assert_eq!(code(method, &["application/grpc"]), 405);
        }
        let response = refused(&Method::GET, &HeaderMap::new()).unwrap();
        assert_eq!(response.headers()[ALLOW], "POST");
    }

    #[test]
    fn a_timeout_is_read_or_refused() {
        let read = |values: &[&str]| timeout(&headers("grpc-timeout", values));
        let units = [
            ("2H", 7_200_000),
            ("3M", 180_000),
            ("4S", 4_000),
            ("5m", 5),
            ("6000u", 6),
            ("7000000n", 7),
            ("0n", 0),
        ];
        for (text, millis) in units {
            assert_eq!(read(&[text]), Ok(Some(Duration::from_millis(millis))), "{text}");
        }
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["99999999H"]).unwrap().unwrap().as_secs(), 99_999_999 * 3_600);
        let bad = [
            "",
            "S",
            "5",
            "5x",
            "-5S",
            "+5S",
            "123456789S",
            "000000001S",
            " 5S",
            "5 S",
            "5é",
            "0x5S",
            "1.5S",
            "5S,5S",
            "soon",
        ];
        for values in bad.iter().map(std::slice::from_ref).chain([&["5S", "5S"][..], &["5S", "x"]]) {
            let failure = read(values).unwrap_err();
            assert!(failure.is(Reason::InvalidRequest), "{values:?}");
            assert_eq!(failure.metadata["header"], "grpc-timeout");
            assert_eq!(failure.certainty(), wire::Delivered::No);
            assert!(failure.message.starts_with("grpc-timeout: must"), "{failure}");
        }
    }

    #[test]
    fn compression_is_refused_with_what_is_accepted() {
        for good in [&[][..], &["identity"], &["Identity", "identity"]] {
            assert!(Told::of(&headers("grpc-encoding", good)).compressed().is_none(), "{good:?}");
        }
        for bad in [&["gzip"][..], &[""], &["identity", "gzip"], &["identity,gzip"], &["\u{fc}"]] {
            let response = Told::of(&headers("grpc-encoding", bad)).compressed().unwrap();
            assert_eq!(response.headers()["grpc-accept-encoding"], "identity");
            let status = tonic::Status::from_header_map(response.headers()).unwrap();
            assert_eq!(status.code(), tonic::Code::Unimplemented, "{bad:?}");
            let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
            assert_eq!(
                (info.reason.as_str(), info.metadata["delivered"].as_str()),
                ("UNSUPPORTED_ENCODING", "no")
            );
        }
    }
}
