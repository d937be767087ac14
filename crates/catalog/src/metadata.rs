//! Which metadata passes between the callers of an rpc and its service: the lists of its route, and the names that never
//! pass. Must not read a value.

use std::collections::BTreeSet;
use std::fmt;

use crate::kind::Problems;
use crate::options::MetadataOption;

/// The most names of each list, and the most bytes of one.
const NAMES: usize = 32;
const LENGTH: usize = 128;
/// Headers of replies that begin so become trailers.
const TRAILER: &str = "trailer-";
/// Names that the gateway reads or sends itself, and those of one connection.
const TAKEN: [&str; 20] = [
    "authorization",
    "baggage",
    "connection",
    "cookie",
    "date",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "principal",
    "set-cookie",
    "te",
    "tenant",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
    "x-request-id",
];
/// What such names begin with.
const TAKEN_PREFIXES: [&str; 8] =
    ["access-control-", "content-", "grpc-", "nats-", "proxy-", "request-", "stream-", TRAILER];

/// Which metadata passes between callers and the service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Of a call, as headers of its request.
    pub request: Vec<MetadataKey>,
    /// Of a reply's headers, as metadata of the response.
    pub reply: Vec<MetadataKey>,
}

/// A name that passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataKey {
    header: String,
    key: String,
}

impl MetadataKey {
    /// Its header on NATS, as the route spells it: services may tell upper and lower case apart.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Its key in gRPC, in lower case.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether this header of a reply is it, and if so, whether it is a trailer.
    pub fn matches(&self, header: &str) -> Option<bool> {
        let is = |name: &str| name.eq_ignore_ascii_case(&self.key);
        let (prefix, rest) = header.split_at_checked(TRAILER.len()).unwrap_or_default();
        match prefix.eq_ignore_ascii_case(TRAILER) && is(rest) {
            true => Some(true),
            false => is(header).then_some(false),
        }
    }
}

impl fmt::Display for Metadata {
    /// What services and callers rely on: the request's headers as they are spelled, and the response's keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request: BTreeSet<_> = self.request.iter().map(MetadataKey::header).collect();
        let reply: BTreeSet<_> = self.reply.iter().map(MetadataKey::key).collect();
        let list = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
        write!(f, "request: {}; reply: {}", list(request), list(reply))
    }
}

/// Reads the lists of a route.
pub(crate) fn read(option: Option<&MetadataOption>, problems: &mut Problems<'_>) -> Metadata {
    let Some(MetadataOption { request, reply }) = option else { return Metadata::default() };
    Metadata { request: list("request", request, problems), reply: list("reply", reply, problems) }
}

fn list(what: &str, names: &[String], problems: &mut Problems<'_>) -> Vec<MetadataKey> {
    if names.len() > NAMES {
        let problem = format!("`metadata.{what}` has {} names", names.len());
        problems.add(problem, format!("list at most {NAMES}"));
        return Vec::new();
    }
    let mut keys: Vec<MetadataKey> = Vec::new();
    for name in names {
        let key = MetadataKey { header: name.clone(), key: name.to_ascii_lowercase() };
        let wrong = match unfit(&key.key, what == "reply") {
            None if keys.iter().any(|known| known.key == key.key) => {
                Some(("is listed twice", "remove one of them: upper and lower case are the same"))
            }
            wrong => wrong,
        };
        match wrong {
            Some((why, remedy)) => problems.add(format!("`metadata.{what}`: {name:?} {why}"), remedy),
            None => keys.push(key),
        }
    }
    keys
}

/// What is wrong with a key in lower case, and what to do.
fn unfit(key: &str, of_reply: bool) -> Option<(&'static str, &'static str)> {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if !(1..=LENGTH).contains(&key.len()) || !key.bytes().all(valid) {
        let remedy = "write 1 to 128 letters, digits, `-`, `_` and `.`";
        return Some(("is no key of gRPC's metadata", remedy));
    }
    if of_reply && key.starts_with(TRAILER) {
        let remedy = "list it without `Trailer-`: each header of the list becomes a trailer with it";
        return Some(("is listed as a trailer", remedy));
    }
    let taken = TAKEN.contains(&key) || TAKEN_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    taken.then_some(("never passes", "choose another name: the gateway, HTTP or NATS use this one"))
}
