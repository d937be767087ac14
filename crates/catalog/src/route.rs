//! Routes: which NATS subject answers an rpc, with which limits, and how payloads are converted. Must not know a
//! connection.

use std::sync::Arc;
use std::time::Duration;

use prost_reflect::MethodDescriptor;
use prost_reflect::prost_types;
use transcode::{BodyError, Codec, JsonCodec, ProtobufCodec, Repetition};

use crate::finding::Finding;
use crate::options::RouteOption;
use crate::rpc::{self, Idempotency};

/// How long an attempt may take where the route does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest attempt.
const TIMEOUT_MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// The most attempts after the first.
const RETRIES_MOST: u32 = 100;
/// The most characters of a token of a subject.
const TOKEN: usize = 64;
/// What the subjects begin with that NATS clients use for replies, those with a prefix of their own too.
const INBOX: &str = "_INBOX";
/// The field that identifies a request.
const KEY: &str = "request_id";

/// The NATS side of one rpc.
#[derive(Debug, Clone)]
pub struct Route {
    /// The full name of the rpc's service, such as `bookstore.v1.Books`.
    pub service: String,
    /// The rpc's name.
    pub rpc: String,
    /// The rpc's path in HTTP/2: `/service/rpc`.
    pub path: String,
    /// The subject that requests are published on.
    pub subject: String,
    /// The queue group of the service's instances; empty for none.
    pub queue_group: String,
    /// The field of the request that alone is the payload; empty for the whole request.
    pub body: String,
    /// How long one attempt may take: more than zero, at most a day. 5 seconds where the route does not say.
    pub timeout: Duration,
    /// How many attempts may follow the first: at most 100.
    pub retries: u32,
    /// Whether an attempt that may have been delivered may be repeated, if its request can be:
    /// [`Codec::repeatable`] tells.
    pub repeatable: bool,
    /// Whether only the gateway itself calls this rpc.
    pub internal: bool,
    /// Whether only an operator's commands call this rpc: no health depends on it.
    pub maintenance: bool,
    /// How payloads are encoded.
    pub encoding: Encoding,
    /// Converts requests and replies.
    pub codec: Arc<dyn Codec>,
}

/// How payloads are encoded on NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// proto3 JSON.
    Json,
    /// The protobuf encoding.
    Protobuf,
}

impl Route {
    /// The payloads' media type.
    pub fn content_type(&self) -> &'static str {
        match self.encoding {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/protobuf",
        }
    }

    /// The time for all attempts together, if the caller sets no deadline.
    pub fn budget(&self) -> Duration {
        self.timeout.saturating_mul(self.retries.saturating_add(1))
    }
}

/// Reads a route, and collects everything that is wrong with it. `typed`: the codec to use in place of the generic one.
pub(crate) fn read(
    method: &MethodDescriptor,
    option: RouteOption,
    typed: Option<Arc<dyn Codec>>,
    findings: &mut Vec<Finding>,
) -> Option<Route> {
    let before = findings.len();
    shape(method, &option, findings);
    let timeout = timeout(method, option.timeout.as_ref(), findings);
    let encoding = encoding(method, option.encoding, findings);
    let generic = encoding.and_then(|encoding| codec(method, &option.body, encoding, findings));
    let (Some(timeout), Some(encoding), Some(generic)) = (timeout, encoding, generic) else { return None };
    (findings.len() == before).then(|| Route {
        service: method.parent_service().full_name().to_owned(),
        rpc: method.name().to_owned(),
        path: rpc::path(method),
        subject: option.subject,
        queue_group: option.queue_group,
        body: option.body,
        timeout,
        retries: option.retries,
        repeatable: Idempotency::of(method) != Idempotency::Unknown,
        internal: option.internal,
        maintenance: option.maintenance,
        encoding,
        codec: typed.unwrap_or(generic),
    })
}

/// Checks what needs no other message.
fn shape(method: &MethodDescriptor, option: &RouteOption, findings: &mut Vec<Finding>) {
    let mut refuse = |problem: String, remedy: &str| findings.push(Finding::of(method, problem, remedy));
    if method.is_client_streaming() || method.is_server_streaming() {
        let problem = "the rpc is streaming: streaming rpcs with a route are not supported yet".to_owned();
        refuse(problem, "remove `stream`, or the option route");
    }
    let subject = option.subject.as_str();
    if !tokens(subject) {
        let problem = format!("the subject {subject:?} has a token that is not [A-Za-z0-9_-]{{1,{TOKEN}}}");
        refuse(problem, "write tokens joined by dots, without wildcards, like \"books.get\"");
    } else if subject.starts_with(INBOX) {
        refuse(
            format!("the subject {subject:?} begins with {INBOX}"),
            "choose another: clients receive replies there",
        );
    }
    let group = option.queue_group.as_str();
    if !group.is_empty() && !tokens(group) {
        let problem = format!("the queue group {group:?} has a token that is not [A-Za-z0-9_-]{{1,{TOKEN}}}");
        refuse(problem, "write tokens joined by dots, or leave it out for no queue group");
    }
    if option.retries > RETRIES_MOST {
        refuse(format!("{} retries are too many", option.retries), &format!("set at most {RETRIES_MOST}"));
    }
    if option.maintenance && !option.internal {
        let problem = "the route is for maintenance, but clients could call the rpc".to_owned();
        refuse(problem, "set `internal: true` as well, or remove `maintenance`");
    }
}

/// Whether this is one or more tokens, joined by dots.
fn tokens(text: &str) -> bool {
    let token = |token: &str| {
        (1..=TOKEN).contains(&token.len())
            && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    text.split('.').all(token)
}

fn timeout(
    method: &MethodDescriptor,
    timeout: Option<&prost_types::Duration>,
    findings: &mut Vec<Finding>,
) -> Option<Duration> {
    let Some(timeout) = timeout else { return Some(TIMEOUT) };
    let parts = (u64::try_from(timeout.seconds), u32::try_from(timeout.nanos));
    if let (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) = parts {
        let timeout = Duration::new(seconds, nanos);
        if !timeout.is_zero() && timeout <= TIMEOUT_MOST {
            return Some(timeout);
        }
    }
    let problem =
        format!("the timeout of {} s and {} ns is not within 1 ns and 24 h", timeout.seconds, timeout.nanos);
    findings.push(Finding::of(method, problem, "correct it, or leave it out for 5 s"));
    None
}

fn encoding(method: &MethodDescriptor, number: i32, findings: &mut Vec<Finding>) -> Option<Encoding> {
    match number {
        0 | 1 => Some(Encoding::Json),
        2 => Some(Encoding::Protobuf),
        _ => {
            let problem = format!("this gateway does not know encoding {number}");
            findings.push(Finding::of(method, problem, "use ENCODING_JSON or ENCODING_PROTOBUF"));
            None
        }
    }
}

/// The codec by descriptors.
fn codec(
    method: &MethodDescriptor,
    body: &str,
    encoding: Encoding,
    findings: &mut Vec<Finding>,
) -> Option<Arc<dyn Codec>> {
    let (request, reply) = (method.input(), method.output());
    let repetition = match (Idempotency::of(method), request.get_field_by_name(KEY)) {
        (Idempotency::Unknown, _) => Repetition::Never,
        (Idempotency::Idempotent, Some(key)) => Repetition::Keyed(key),
        (Idempotency::Idempotent, None) | (Idempotency::NoSideEffects, _) => Repetition::Always,
    };
    let json = || JsonCodec::new(request.clone(), reply.clone(), repetition.clone());
    match (encoding, body) {
        (Encoding::Protobuf, "") => Some(Arc::new(ProtobufCodec::new(request, reply, repetition))),
        (Encoding::Protobuf, _) => {
            let problem = format!("the body {body:?} needs ENCODING_JSON");
            findings.push(Finding::of(method, problem, "remove `body`, or set `encoding: ENCODING_JSON`"));
            None
        }
        (Encoding::Json, "") => Some(Arc::new(json())),
        (Encoding::Json, _) => match json().with_body(body) {
            Ok(codec) => Some(Arc::new(codec)),
            Err(error) => {
                let fields: Vec<_> = request.fields().map(|field| field.name().to_owned()).collect();
                let remedy = match error {
                    BodyError::UnknownField { .. } if !fields.is_empty() => {
                        format!("`body` is one of: {}", fields.join(", "))
                    }
                    BodyError::UnknownField { .. } | BodyError::WellKnownType { .. } => {
                        "remove `body`".to_owned()
                    }
                };
                findings.push(Finding::of(method, format!("`body`: {error}"), remedy));
                None
            }
        },
    }
}
