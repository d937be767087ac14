//! What an rpc does on NATS: its kind, with what belongs to it, and which methods fit it. Must not send anything.

use std::time::Duration;

use prost_reflect::{FieldDescriptor, MethodDescriptor};
use transcode::FieldPath;

use crate::duration::within_a_day;
use crate::finding::Finding;
use crate::options::{DurableOption, RepliesOption, RouteOption, SubscriptionOption};
use crate::subject::is_token;

/// What an rpc does on NATS.
#[derive(Debug, Clone)]
pub enum Kind {
    /// One request, one reply.
    Request,
    /// A message without a reply.
    Emit {
        /// Whether somebody has to subscribe.
        require_subscriber: bool,
    },
    /// Messages that a JetStream stream stores.
    EmitDurable(Durable),
    /// One request, many replies.
    RequestMany(Replies),
    /// The messages that are published on the subject.
    Subscribe(Subscription),
}

/// How messages are stored.
#[derive(Debug, Clone)]
pub struct Durable {
    /// The stream that has to store them; none: any.
    pub stream: Option<String>,
    /// The field that identifies a message.
    pub message_id: Option<FieldPath>,
    /// The field with the sequence that has to be the last one of the subject.
    pub expected_sequence: Option<FieldPath>,
    /// Whether the client streams the messages.
    pub streams: bool,
    /// The reply's fields.
    pub receipt: Receipt,
}

/// The numbers of the fields of a reply that says what was stored; none: the reply does not have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// `string stream`.
    pub stream: Option<u32>,
    /// `uint64 sequence`: of the message; of a stream of messages, of the last one.
    pub sequence: Option<u32>,
    /// `bool duplicate`: it was stored before. Not of a stream of messages.
    pub duplicate: Option<u32>,
    /// `uint64 stored`: how many messages are stored. Only of a stream of messages.
    pub stored: Option<u32>,
}

/// When a stream of replies ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replies {
    /// After so many.
    pub count: Option<u32>,
    /// When nothing comes for so long.
    pub idle: Duration,
    /// Whether all instances answer.
    pub all: bool,
}

/// What a subscription reads.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The stream that stores the messages; none: what is published while nobody listens is missed.
    pub stream: Option<String>,
    /// The field of the request with the token to continue behind.
    pub resume: Option<FieldPath>,
    /// The number of the reply's field for the token of each message.
    pub token: Option<u32>,
}

impl Kind {
    /// Whether a service has to be there for a call to succeed.
    pub fn asks(&self) -> bool {
        matches!(self, Kind::Request | Kind::RequestMany(_))
    }

    /// Whether clients receive a stream.
    pub fn streams_replies(&self) -> bool {
        matches!(self, Kind::RequestMany(_) | Kind::Subscribe(_))
    }

    /// Whether clients send a stream.
    pub fn streams_requests(&self) -> bool {
        matches!(self, Kind::EmitDurable(durable) if durable.streams)
    }

    /// What belongs to it, as a text to compare.
    pub fn settings(&self) -> String {
        let path = |path: &Option<FieldPath>| path.as_ref().map(|path| path.path().to_owned());
        match self {
            Kind::Request => String::new(),
            Kind::Emit { require_subscriber } => format!("require_subscriber: {require_subscriber}"),
            Kind::EmitDurable(Durable { stream, message_id, expected_sequence, .. }) => {
                format!("{stream:?} {:?} {:?}", path(message_id), path(expected_sequence))
            }
            Kind::RequestMany(Replies { count, all, .. }) => format!("{count:?} {all}"),
            Kind::Subscribe(Subscription { stream, resume, token }) => {
                format!("{stream:?} {:?} {token:?}", path(resume))
            }
        }
    }

    /// Its name, as in the option without `KIND_`.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Request => "REQUEST",
            Kind::Emit { .. } => "EMIT",
            Kind::EmitDurable(_) => "EMIT_DURABLE",
            Kind::RequestMany(_) => "REQUEST_MANY",
            Kind::Subscribe(_) => "SUBSCRIBE",
        }
    }
}

/// Collects what is wrong with one rpc.
pub(crate) struct Problems<'a> {
    pub(crate) method: &'a MethodDescriptor,
    pub(crate) findings: &'a mut Vec<Finding>,
}

impl Problems<'_> {
    pub(crate) fn add(&mut self, problem: impl std::fmt::Display, remedy: impl std::fmt::Display) {
        self.findings.push(Finding::of(self.method, problem, remedy));
    }
}

/// Reads the kind of an rpc. `timeout`: that of the route.
pub(crate) fn read(option: &RouteOption, timeout: Duration, problems: &mut Problems<'_>) -> Option<Kind> {
    let method = problems.method;
    let streams = (method.is_client_streaming(), method.is_server_streaming());
    strangers(option, problems);
    match (option.kind, streams) {
        (_, (true, true)) => {
            let problem = "streams both ways: no kind of route does";
            problems.add(problem, "remove `stream` on one side, or the option route");
            None
        }
        (0 | 1, (false, false)) => Some(Kind::Request),
        (2, (false, false)) => emit(option, problems),
        (3, (client, false)) => durable(option.durable.as_ref(), client, problems).map(Kind::EmitDurable),
        (4, (false, true)) => replies(option.replies.as_ref(), timeout, problems).map(Kind::RequestMany),
        (5, (false, true)) => subscription(option, problems).map(Kind::Subscribe),
        (0, _) => {
            let kinds = match streams.0 {
                true => "`kind: KIND_EMIT_DURABLE`",
                false => "`kind: KIND_REQUEST_MANY` or `kind: KIND_SUBSCRIBE`",
            };
            problems
                .add("is streaming, and its route has no kind", format!("write {kinds}, or remove `stream`"));
            None
        }
        (1..=5, _) => {
            let problem = "its kind does not fit the streams of the rpc";
            let remedy = "unary: KIND_REQUEST, KIND_EMIT, KIND_EMIT_DURABLE; client stream: KIND_EMIT_DURABLE; \
                          server stream: KIND_REQUEST_MANY, KIND_SUBSCRIBE";
            problems.add(problem, remedy);
            None
        }
        (kind, _) => {
            problems.add(format!("this gateway does not know kind {kind}"), "use a kind of natsgateway.v1");
            None
        }
    }
}

/// Settings of another kind than the route's.
fn strangers(option: &RouteOption, problems: &mut Problems<'_>) {
    let kind = option.kind;
    let asks = matches!(kind, 0 | 1 | 4);
    let told = option.metadata.as_ref().is_some_and(|metadata| !metadata.reply.is_empty());
    for (set, fits, name, kinds) in [
        (option.require_subscriber, kind == 2, "require_subscriber", "KIND_EMIT"),
        (option.durable.is_some(), kind == 3, "durable", "KIND_EMIT_DURABLE"),
        (option.replies.is_some(), kind == 4, "replies", "KIND_REQUEST_MANY"),
        (option.subscription.is_some(), kind == 5, "subscription", "KIND_SUBSCRIBE"),
        (!option.queue_group.is_empty(), asks, "queue_group", "KIND_REQUEST and KIND_REQUEST_MANY"),
        (option.cancel, asks, "cancel", "KIND_REQUEST and KIND_REQUEST_MANY"),
        (option.retries > 0, kind != 2 && kind != 5, "retries", "kinds that may repeat what they send"),
        (option.metadata.is_some(), kind != 5, "metadata", "kinds that send a payload"),
        (told, asks || kind == 5, "metadata.reply", "KIND_REQUEST and KIND_REQUEST_MANY"),
        (!option.body.is_empty(), kind != 5, "body", "kinds that send a payload"),
        (
            !option.response_body.is_empty(),
            !matches!(kind, 2 | 3),
            "response_body",
            "kinds that have replies",
        ),
    ] {
        if set && !fits {
            problems.add(format!("`{name}` is for {kinds}"), format!("remove `{name}`, or change the kind"));
        }
    }
}

fn emit(option: &RouteOption, problems: &mut Problems<'_>) -> Option<Kind> {
    let reply = problems.method.output();
    if reply.fields().len() > 0 {
        let problem = format!("the reply {} has fields, and an event has no reply", reply.full_name());
        problems.add(problem, "return a message without fields, such as google.protobuf.Empty");
        return None;
    }
    Some(Kind::Emit { require_subscriber: option.require_subscriber })
}

fn durable(option: Option<&DurableOption>, streams: bool, problems: &mut Problems<'_>) -> Option<Durable> {
    let default = DurableOption::default();
    let option = option.unwrap_or(&default);
    let stream = stream(&option.stream, problems);
    let request = problems.method.input();
    let mut path = |path: &str, name: &str| match FieldPath::new(&request, path) {
        _ if path.is_empty() => None,
        Ok(path) => Some(path),
        Err(error) => {
            problems.add(format!("`{name}`: {error}"), "write the name of a field of the request");
            None
        }
    };
    let message_id = path(&option.message_id, "message_id");
    let expected_sequence = path(&option.expected_sequence, "expected_sequence");
    if expected_sequence.as_ref().is_some_and(|path| !path.is_integer() || !path.has_presence()) {
        let remedy = "declare the field as `optional uint64`: 0 says that there is none yet";
        problems.add("`expected_sequence` is not an integer that can be unset", remedy);
    }
    if streams && expected_sequence.is_some() {
        problems.add("`expected_sequence` is for unary rpcs", "remove it, or `stream`");
    }
    let receipt = receipt(streams, problems)?;
    Some(Durable { stream: stream?, message_id, expected_sequence, streams, receipt })
}

fn receipt(streams: bool, problems: &mut Problems<'_>) -> Option<Receipt> {
    use prost_reflect::Kind::{Bool, String, Uint64};
    let (mut receipt, mut fits) = (Receipt::default(), true);
    for field in problems.method.output().fields() {
        let place = match (field.name(), field.kind(), streams) {
            ("stream", String, _) => &mut receipt.stream,
            ("sequence", Uint64, _) => &mut receipt.sequence,
            ("duplicate", Bool, false) => &mut receipt.duplicate,
            ("stored", Uint64, true) => &mut receipt.stored,
            _ => {
                fits = false;
                let problem = format!("nobody fills the field {:?} of the reply", field.name());
                let remedy = match streams {
                    true => "it may have `string stream`, `uint64 sequence`, `uint64 stored`, and no others",
                    false => {
                        "it may have `string stream`, `uint64 sequence`, `bool duplicate`, and no others"
                    }
                };
                problems.add(problem, remedy);
                continue;
            }
        };
        *place = Some(field.number());
        fits &= !is_repeated(&field, problems);
    }
    fits.then_some(receipt)
}

fn is_repeated(field: &FieldDescriptor, problems: &mut Problems<'_>) -> bool {
    let repeated = field.is_list();
    if repeated {
        problems.add(format!("the field {:?} is repeated", field.name()), "remove `repeated`");
    }
    repeated
}

fn replies(
    option: Option<&RepliesOption>,
    timeout: Duration,
    problems: &mut Problems<'_>,
) -> Option<Replies> {
    let default = RepliesOption::default();
    let option = option.unwrap_or(&default);
    let idle = match &option.idle_timeout {
        None => Some(timeout),
        Some(idle) => within_a_day(idle),
    };
    let Some(idle) = idle else {
        problems.add("the idle_timeout is not within 1 ns and 24 h", "correct it, or leave it out");
        return None;
    };
    Some(Replies { count: Some(option.count).filter(|count| *count > 0), idle, all: option.all })
}

fn subscription(option: &RouteOption, problems: &mut Problems<'_>) -> Option<Subscription> {
    let default = SubscriptionOption::default();
    let option = option.subscription.as_ref().unwrap_or(&default);
    let stream = stream(&option.stream, problems)?;
    for (name, field) in [("resume_field", &option.resume_field), ("token_field", &option.token_field)] {
        if stream.is_none() && !field.is_empty() {
            problems.add(format!("`{name}` needs `stream`"), "only what a stream stores can be resumed");
            return None;
        }
    }
    let resume = match option.resume_field.as_str() {
        "" => None,
        name => match FieldPath::new(&problems.method.input(), name) {
            Ok(path) if path.is_string() => Some(path),
            Ok(_) => {
                problems.add("`resume_field` is not a string", "declare it as string: tokens are opaque");
                return None;
            }
            Err(error) => {
                problems.add(format!("`resume_field`: {error}"), "write the name of a field of the request");
                return None;
            }
        },
    };
    let token = match option.token_field.as_str() {
        "" => None,
        name => {
            let field = problems.method.output().get_field_by_name(name);
            let field = field.filter(|field| field.kind() == prost_reflect::Kind::String && !field.is_list());
            let Some(field) = field else {
                let problem = format!("`token_field`: the reply has no string {name:?}");
                problems.add(problem, "write the name of a string field of the reply");
                return None;
            };
            Some(field.number())
        }
    };
    Some(Subscription { stream, resume, token })
}

/// The name of a stream; none for an empty one.
#[expect(clippy::option_option, reason = "an error, or no name")]
fn stream(name: &str, problems: &mut Problems<'_>) -> Option<Option<String>> {
    match name {
        "" => Some(None),
        name if is_token(name) => Some(Some(name.to_owned())),
        name => {
            let problem = format!("the stream {name:?} is not [A-Za-z0-9_-]{{1,64}}");
            problems.add(problem, "write the name of a stream, or leave it out for any");
            None
        }
    }
}
