//! Invariants of any bytes that arrive over gRPC, and of the status that a failure becomes. Driven by the
//! fuzzers in fuzz/, and by their corpus in every test run.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::Instant;
use tonic::Status;
use wire::Failure;

use admission::Arrival;
use admission::request::{latest, timeout};

use super::origin::Origin;
use super::peer::Peer;
use super::{Baggage, framing, metadata, status};
use bridge::call::{CallContext, Limit};

/// Maximum size of a message, in bytes.
const MOST: usize = 4_096;
/// Maximum size of response headers that all clients accept, in bytes.
const HEADERS: usize = admission::RESPONSE;

/// A call: lines of headers, an empty line, and its message, which is read back from its frames. Returns its context and
/// its message.
///
/// # Panics
/// If the context has what nobody authenticated, or a message is read differently when its frames are split.
pub fn request(data: &[u8]) -> (CallContext, &[u8]) {
    let end = data.windows(2).position(|window| window == b"\n\n");
    let (head, message) = end.map_or((&b""[..], data), |end| (&data[..end], &data[end + 2..]));
    let call = told(&headers(head));
    framed(message);
    (call, message)
}

fn headers(head: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in head.split(|b| *b == b'\n').take(16) {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii_start());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// The call context of these headers.
fn told(headers: &HeaderMap) -> CallContext {
    let mut extensions = Extensions::new();
    if let Some(kept) = Baggage::new(&["tenant".to_owned()]).of(headers) {
        assert!(kept.0.split(',').all(|entry| entry.starts_with("tenant")), "{:?} travels on", kept.0);
        extensions.insert(kept);
    }
    let (now, budget) = (Instant::now(), Duration::from_secs(20));
    // A malformed timeout is refused earlier.
    let asked = timeout(headers).ok().flatten();
    let peer = Arc::new(Peer::new(None, None, Duration::ZERO));
    let origin = Origin::new(peer, Arrival { at: now, asked });
    let budget = metadata::Budget { default: budget, longest: bridge::call::LONGEST };
    let call = metadata::call(headers, &extensions, &origin, budget);
    assert!(call.principal.is_empty() && call.tenant == bridge::Tenancy::Unnamed, "nobody says who they are");
    if matches!(call.limit, Limit::Caller) {
        assert!(call.deadline <= now + bridge::call::LONGEST);
        let asked = asked.expect("the caller gave a time");
        assert!(call.deadline <= now + latest(asked) && latest(asked) <= asked);
    }
    call
}

/// A framed message is read back, and any bytes give the same result however they are split.
fn framed(bytes: &[u8]) {
    if let Ok(length) = u32::try_from(bytes.len())
        && bytes.len() <= MOST
    {
        let whole = [&[0][..], &length.to_be_bytes(), bytes].concat();
        assert_eq!(read(&[&whole]).ok().as_deref(), Some(bytes));
    }
    let whole = read(&[bytes]);
    for at in [1, 5, bytes.len() / 2].into_iter().filter(|at| *at <= bytes.len()) {
        let parts = read(&[&bytes[..at], &bytes[at..]]);
        assert_eq!(parts.as_ref().ok(), whole.as_ref().ok(), "cut at {at}");
        let code = |read: &Result<Bytes, Status>| read.as_ref().err().map(Status::code);
        assert_eq!(code(&parts), code(&whole), "cut at {at}");
    }
}

fn read(parts: &[&[u8]]) -> Result<Bytes, Status> {
    let frames = parts.iter().map(|part| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(part))));
    let frames: Vec<_> = frames.collect();
    let body = StreamBody::new(futures_util::stream::iter(frames));
    framing::read(body, MOST).now_or_never().expect("there is nothing to wait for")
}

/// A failure becomes a status that every client can parse.
///
/// # Panics
/// If it does not.
pub fn said(failure: Failure) {
    let status = status(failure);
    assert_ne!(status.code(), tonic::Code::Ok, "a refusal is no success");
    let response = status.clone().into_http::<()>();
    let size: usize =
        response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(size <= HEADERS, "{size} bytes of headers");
    let read = Status::from_header_map(response.headers()).expect("a client finds a status");
    assert_eq!((read.code(), read.message()), (status.code(), status.message()));
    assert_eq!(read.details(), status.details());
}
