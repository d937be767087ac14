//! Routes: which NATS subject answers an rpc, with which limits, and how payloads are converted. Must not know a
//! connection.

use std::sync::Arc;
use std::time::Duration;

use prost_reflect::MethodDescriptor;
use prost_reflect::prost_types;
use transcode::{BodyError, Codec, FieldPath, JsonCodec, ProtobufCodec, Repetition};

use crate::duration::within_a_day;
use crate::finding::Finding;
use crate::kind::{self, Kind, Problems};
use crate::metadata::{self, Metadata};
use crate::options::RouteOption;
use crate::rpc::{self, Idempotency};
use crate::subject::{Subject, TOKEN, is_token};

/// How long an attempt may take where the route does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most attempts after the first.
const RETRIES_MOST: u32 = 100;
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
    /// The subject that requests are published on, or that is subscribed to.
    pub subject: Subject,
    /// What it does on NATS.
    pub kind: Kind,
    /// The queue group of the service's instances; empty for none.
    pub queue_group: String,
    /// The field of the request that alone is the payload; empty for the whole request.
    pub body: String,
    /// The field of the reply that alone is the payload; empty for the whole reply.
    pub response_body: String,
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
    /// How they are wrapped; none: as the gateway's configuration says.
    pub envelope: Option<Envelope>,
    /// How many calls may be in flight; none: as the gateway's configuration says.
    pub max_in_flight: Option<usize>,
    /// The field of the request that has to be the caller's tenant.
    pub tenant_field: Option<FieldPath>,
    /// Whether the service is told when the caller leaves.
    pub cancel: bool,
    /// Which metadata passes between callers and the service.
    pub metadata: Metadata,
    /// Whether the service's word is taken for whether a request was delivered: it belongs to this project.
    pub trusted: bool,
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

/// How payloads are wrapped on NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// Not at all.
    Plain,
    /// As by NestJS.
    Nest,
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
    let subject = subject(&option, &mut Problems { method, findings });
    shape(&option, &mut Problems { method, findings });
    let timeout = timeout(method, option.timeout.as_ref(), findings);
    let kind = kind::read(&option, timeout.unwrap_or(TIMEOUT), &mut Problems { method, findings });
    let metadata = metadata::read(option.metadata.as_ref(), &mut Problems { method, findings });
    let encoding = encoding(method, option.encoding, findings);
    let envelope =
        encoding.and_then(|encoding| envelope(&option, encoding, &mut Problems { method, findings }));
    let generic = encoding.and_then(|encoding| codec(&option, encoding, &mut Problems { method, findings }));
    let (Some(subject), Some(timeout), Some(encoding), Some(generic)) = (subject, timeout, encoding, generic)
    else {
        return None;
    };
    let kind = kind.filter(|_| findings.len() == before)?;
    let repeatable = repeatable(method, &kind);
    Some(Route {
        service: method.parent_service().full_name().to_owned(),
        rpc: method.name().to_owned(),
        path: rpc::path(method),
        subject,
        kind,
        queue_group: option.queue_group,
        body: option.body,
        response_body: option.response_body,
        timeout,
        retries: option.retries,
        repeatable,
        internal: option.internal,
        maintenance: option.maintenance,
        encoding,
        envelope: envelope?,
        max_in_flight: usize::try_from(option.max_in_flight).ok().filter(|most| *most > 0),
        tenant_field: None,
        cancel: option.cancel,
        metadata,
        trusted: false,
        codec: typed.unwrap_or(generic),
    })
}

/// Whether an attempt may be repeated that may have been delivered. A stream stores a message once that has an id or a
/// condition.
fn repeatable(method: &MethodDescriptor, kind: &Kind) -> bool {
    match kind {
        Kind::EmitDurable(durable) => durable.message_id.is_some() || durable.expected_sequence.is_some(),
        _ => Idempotency::of(method) != Idempotency::Unknown,
    }
}

fn subject(option: &RouteOption, problems: &mut Problems<'_>) -> Option<Subject> {
    match Subject::read(&option.subject, &problems.method.input()) {
        Err((problem, remedy)) => {
            problems.add(problem, remedy);
            None
        }
        Ok(subject) if subject.as_str().starts_with(INBOX) => {
            let problem = format!("the subject {:?} begins with {INBOX}", option.subject);
            problems.add(problem, "choose another: clients receive replies there");
            None
        }
        Ok(subject) if subject.pattern().starts_with('*') => {
            let problem = format!("the subject {:?} begins with a token of the request", option.subject);
            problems.add(problem, "begin with a fixed token: a caller could choose any subject");
            None
        }
        Ok(subject) => Some(subject),
    }
}

/// Checks what needs no other message.
fn shape(option: &RouteOption, problems: &mut Problems<'_>) {
    let group = option.queue_group.as_str();
    if !group.is_empty() && !group.split('.').all(is_token) {
        let problem = format!("the queue group {group:?} has a token that is not [A-Za-z0-9_-]{{1,{TOKEN}}}");
        problems.add(problem, "write tokens joined by dots, or leave it out for no queue group");
    }
    if option.retries > RETRIES_MOST {
        problems
            .add(format!("{} retries are too many", option.retries), format!("set at most {RETRIES_MOST}"));
    }
    if option.maintenance && !option.internal {
        let problem = "the route is for maintenance, but clients could call the rpc";
        problems.add(problem, "set `internal: true` as well, or remove `maintenance`");
    }
}

#[expect(clippy::option_option, reason = "an error, or as the configuration says")]
fn envelope(
    option: &RouteOption,
    encoding: Encoding,
    problems: &mut Problems<'_>,
) -> Option<Option<Envelope>> {
    match (option.envelope, encoding) {
        (0, _) => Some(None),
        (1, _) => Some(Some(Envelope::Plain)),
        (2, Encoding::Json) => Some(Some(Envelope::Nest)),
        (2, Encoding::Protobuf) => {
            problems.add("ENVELOPE_NEST needs ENCODING_JSON", "remove `envelope` or `encoding`");
            None
        }
        (number, _) => {
            let problem = format!("this gateway does not know envelope {number}");
            problems.add(problem, "use ENVELOPE_PLAIN or ENVELOPE_NEST");
            None
        }
    }
}

fn timeout(
    method: &MethodDescriptor,
    timeout: Option<&prost_types::Duration>,
    findings: &mut Vec<Finding>,
) -> Option<Duration> {
    let Some(timeout) = timeout else { return Some(TIMEOUT) };
    if let Some(timeout) = within_a_day(timeout) {
        return Some(timeout);
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
fn codec(option: &RouteOption, encoding: Encoding, problems: &mut Problems<'_>) -> Option<Arc<dyn Codec>> {
    let method = problems.method;
    let (request, reply) = (method.input(), method.output());
    let repetition = match (Idempotency::of(method), request.get_field_by_name(KEY)) {
        (Idempotency::Unknown, _) => Repetition::Never,
        (Idempotency::Idempotent, Some(key)) => Repetition::Keyed(key),
        (Idempotency::Idempotent, None) | (Idempotency::NoSideEffects, _) => Repetition::Always,
    };
    let parts = [("body", &option.body), ("response_body", &option.response_body)];
    let mut parts = parts.into_iter().filter(|(_, field)| !field.is_empty());
    if encoding == Encoding::Protobuf {
        let Some((name, field)) = parts.next() else {
            return Some(Arc::new(ProtobufCodec::new(request, reply, repetition)));
        };
        let problem = format!("the {name} {field:?} needs ENCODING_JSON");
        problems.add(problem, format!("remove `{name}`, or set `encoding: ENCODING_JSON`"));
        return None;
    }
    let mut codec = JsonCodec::new(request.clone(), reply.clone(), repetition);
    for (name, field) in parts {
        let (part, message) = match name {
            "body" => (codec.with_body(field), &request),
            _ => (codec.with_response_body(field), &reply),
        };
        codec = match part {
            Ok(codec) => codec,
            Err(error) => {
                let fields: Vec<_> = message.fields().map(|field| field.name().to_owned()).collect();
                let remedy = match error {
                    BodyError::UnknownField { .. } if !fields.is_empty() => {
                        format!("`{name}` is one of: {}", fields.join(", "))
                    }
                    BodyError::UnknownField { .. } | BodyError::WellKnownType { .. } => {
                        format!("remove `{name}`")
                    }
                };
                problems.add(format!("`{name}`: {error}"), remedy);
                return None;
            }
        };
    }
    Some(Arc::new(codec))
}
