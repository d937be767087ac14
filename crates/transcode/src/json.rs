//! Payloads in proto3 JSON, by descriptors. Must not know any message but through its descriptor.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prost_reflect::{FieldDescriptor, MessageDescriptor};

use crate::plan::{Plan, Unplanned};
use crate::to_wire::UnknownNames;
use crate::{Codec, CodecError, Repetition, dynamic, to_json, to_wire};

/// The package of the types that have a JSON form of their own.
const WELL_KNOWN: &str = "google.protobuf";
/// The most that NATS accepts as a payload, in bytes.
const LIMIT: usize = 64 << 20;

/// The codec of an rpc whose payloads are proto3 JSON.
///
/// Payloads are written with camelCase names and with every field that has no presence, also where it has its default.
/// They are read with camelCase or original names. Read and written are:
///
/// - Fields that are unknown are ignored. Fields and map keys that occur twice are refused, as is a second field of a
///   oneof.
/// - `null` stands for an absent field. It is an error as an element of a list or a value of a map.
/// - Integers may be spelled `2`, `2.0` or `2e0`, and as texts also `"02"` or `"+2"`. They are exact.
/// - Enum values are names or numbers. Unknown numbers pass both ways. Unknown names are left out of replies, and
///   refused in requests ([`read_request`](JsonCodec::read_request)).
/// - Timestamps are written in UTC, with a `Z`. They are read as in RFC 3339, with a capital `T` and `Z`, at most nine
///   digits of fraction, and without leap seconds.
/// - Messages may be nested 100 levels deep, and results be 64 MiB long ([`with_limit`](JsonCodec::with_limit)).
///
/// Both messages are compiled into tables when they are first needed; a payload is then converted in one pass, without
/// a message in memory. Messages that contain proto2, groups or `google.protobuf.Any` are converted by the library's
/// dynamic messages instead: ten times as slow, and less strict. There, of a field or key that occurs twice the last value
/// is taken, and an unsigned 64-bit integer one above its range is read as its maximum.
#[derive(Clone)]
pub struct JsonCodec {
    request: MessageDescriptor,
    reply: MessageDescriptor,
    body: Option<FieldDescriptor>,
    response_body: Option<FieldDescriptor>,
    repetition: Repetition,
    limit: usize,
    plans: Arc<Plans>,
}

/// The plans of both messages, compiled when they are first needed.
#[derive(Default)]
pub(crate) struct Plans {
    request: OnceLock<Result<Plan, Unplanned>>,
    reply: OnceLock<Result<Plan, Unplanned>>,
}

impl Plans {
    /// The plan of the request; none if there is none for such a message.
    pub(crate) fn request(&self, message: &MessageDescriptor) -> Option<&Plan> {
        self.request.get_or_init(|| Plan::of(message)).as_ref().ok()
    }

    /// The same for the reply.
    pub(crate) fn reply(&self, message: &MessageDescriptor) -> Option<&Plan> {
        self.reply.get_or_init(|| Plan::of(message)).as_ref().ok()
    }
}

/// A reply that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadReply {
    /// The encoding of the message.
    pub protobuf: Vec<u8>,
    /// How many enum values were left out because the contract does not have their names: the service's contract is
    /// another one. Always 0 for messages that are converted by dynamic messages.
    pub unknown_names: u32,
}

/// A field that cannot be the payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The message has no field of that name.
    #[error("the {part} {message} has no field {field:?}")]
    UnknownField {
        /// `request` or `reply`.
        part: &'static str,
        /// The full name of the message.
        message: String,
        /// The name of the field.
        field: String,
    },
    /// The message is a well-known type, whose JSON form has no fields.
    #[error("the {part} {message} is a well-known type: its JSON form has no fields")]
    WellKnownType {
        /// `request` or `reply`.
        part: &'static str,
        /// The full name of the message.
        message: String,
    },
}

impl JsonCodec {
    /// A codec for these messages: payloads are the whole messages.
    pub fn new(request: MessageDescriptor, reply: MessageDescriptor, repetition: Repetition) -> JsonCodec {
        JsonCodec {
            request,
            reply,
            body: None,
            response_body: None,
            repetition,
            limit: LIMIT,
            plans: Arc::default(),
        }
    }

    /// The same codec, but this field of the request alone is the payload. A field that is unset and has presence is
    /// written as `null`. Replies are not affected.
    ///
    /// ```
    /// use transcode::{Codec, JsonCodec, Repetition};
    /// # use protox::file::File;
    /// # use protox::prost_reflect::DescriptorPool;
    /// # let proto = r#"
    /// #     syntax = "proto3";
    /// #     message GetBooksRequest { repeated string book_ids = 1; }
    /// #     message Books { repeated string titles = 1; }
    /// # "#;
    /// # let mut pool = DescriptorPool::new();
    /// # pool.add_file_descriptor_proto(File::from_source("books.proto", proto)?.file_descriptor_proto().clone())?;
    /// # let [request, reply] = ["GetBooksRequest", "Books"].map(|name| pool.get_message_by_name(name));
    /// # let (request, reply) = (request.ok_or("no request")?, reply.ok_or("no reply")?);
    ///
    /// // message GetBooksRequest { repeated string book_ids = 1; }
    /// let codec = JsonCodec::new(request, reply, Repetition::Always).with_body("book_ids")?;
    /// assert_eq!(codec.request(b"\x0a\x03b-7\x0a\x03b-8")?, br#"["b-7","b-8"]"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the request has no such field, or is a well-known type.
    pub fn with_body(self, field: &str) -> Result<JsonCodec, BodyError> {
        let body = body_of("request", &self.request, field)?;
        Ok(JsonCodec { body: Some(body), ..self })
    }

    /// The same codec, but the payload of a reply is the value of this field of the reply alone, as `response_body` of
    /// `google.api.http` has it. It has to be exactly one JSON value; `null` leaves a field unset unless it is a value of
    /// its type. Requests are not affected.
    ///
    /// ```
    /// use transcode::{Codec, JsonCodec, Repetition};
    /// # use protox::file::File;
    /// # use protox::prost_reflect::DescriptorPool;
    /// # let proto = r#"
    /// #     syntax = "proto3";
    /// #     message GetBooksRequest { repeated string book_ids = 1; }
    /// #     message Books { repeated string titles = 1; }
    /// # "#;
    /// # let mut pool = DescriptorPool::new();
    /// # pool.add_file_descriptor_proto(File::from_source("books.proto", proto)?.file_descriptor_proto().clone())?;
    /// # let [request, reply] = ["GetBooksRequest", "Books"].map(|name| pool.get_message_by_name(name));
    /// # let (request, reply) = (request.ok_or("no request")?, reply.ok_or("no reply")?);
    ///
    /// // message Books { repeated string titles = 1; }
    /// let codec = JsonCodec::new(request, reply, Repetition::Always).with_response_body("titles")?;
    /// assert_eq!(codec.reply(br#"["Emma","Persuasion"]"#)?, b"\x0a\x04Emma\x0a\x0aPersuasion");
    /// assert_eq!(codec.reply(br#"["Emma",7]"#).unwrap_err().path(), "titles[1]");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the reply has no such field, or is a well-known type.
    pub fn with_response_body(self, field: &str) -> Result<JsonCodec, BodyError> {
        let body = body_of("reply", &self.reply, field)?;
        Ok(JsonCodec { response_body: Some(body), ..self })
    }

    /// The same codec, but no result is longer than this, in bytes. Zeros are written out, so that JSON can be many
    /// times as long as its message: what exceeds the limit fails while it is written.
    #[must_use]
    pub fn with_limit(self, bytes: usize) -> JsonCodec {
        JsonCodec { limit: bytes, ..self }
    }

    /// Converts a request in JSON, as an HTTP client sends it, to its protobuf encoding. It is the whole message, also
    /// where the payload is one field of it. Names of enum values that are unknown are refused, unless the message is
    /// converted by dynamic messages.
    ///
    /// # Errors
    ///
    /// If the text is not a form of the rpc's request message.
    pub fn read_request(&self, json: &[u8]) -> Result<Vec<u8>, CodecError> {
        match self.plan_of_request() {
            Some(plan) => Ok(to_wire::convert(plan, None, json, UnknownNames::Refuse, self.limit)?.protobuf),
            None => self.within_limit(dynamic::to_wire(&self.request, None, json)?),
        }
    }

    /// Converts the payload of a reply as [`Codec::reply`] does, and says what was left out.
    ///
    /// # Errors
    ///
    /// If the payload is not a form of the rpc's reply message.
    pub fn read_reply(&self, payload: &[u8]) -> Result<ReadReply, CodecError> {
        let body = self.response_body.as_ref();
        match planned(self.plan_of_reply(), body) {
            Some((plan, field)) => {
                let read = to_wire::convert(plan, field, payload, UnknownNames::LeaveOut, self.limit)?;
                Ok(ReadReply { protobuf: read.protobuf, unknown_names: read.unknown_names })
            }
            None => {
                let protobuf = self.within_limit(dynamic::to_wire(&self.reply, body, payload)?)?;
                Ok(ReadReply { protobuf, unknown_names: 0 })
            }
        }
    }

    fn plan_of_request(&self) -> Option<&Plan> {
        self.plans.request(&self.request)
    }

    fn plan_of_reply(&self) -> Option<&Plan> {
        self.plans.reply(&self.reply)
    }

    fn within_limit(&self, bytes: Vec<u8>) -> Result<Vec<u8>, CodecError> {
        if bytes.len() <= self.limit { Ok(bytes) } else { Err(CodecError::new("", "is too large")) }
    }
}

/// The field of a message that is to be the payload. `part` says which message it is.
fn body_of(
    part: &'static str,
    message: &MessageDescriptor,
    field: &str,
) -> Result<FieldDescriptor, BodyError> {
    let name = || message.full_name().to_owned();
    if message.package_name() == WELL_KNOWN {
        return Err(BodyError::WellKnownType { part, message: name() });
    }
    let body = message.get_field_by_name(field);
    body.ok_or_else(|| BodyError::UnknownField { part, message: name(), field: field.to_owned() })
}

/// The plan, with the index of the field that is the payload.
fn planned<'a>(plan: Option<&'a Plan>, body: Option<&FieldDescriptor>) -> Option<(&'a Plan, Option<usize>)> {
    let plan = plan?;
    match body {
        None => Some((plan, None)),
        Some(field) => plan.root_field(field.number()).map(|field| (plan, Some(field))),
    }
}

impl Codec for JsonCodec {
    fn request(&self, protobuf: &[u8]) -> Result<Vec<u8>, CodecError> {
        let body = self.body.as_ref();
        match planned(self.plan_of_request(), body) {
            Some((plan, field)) => Ok(to_json::convert(plan, field, protobuf, self.limit)?.text),
            None => self.within_limit(dynamic::to_json(&self.request, body, protobuf)?),
        }
    }

    fn reply(&self, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
        self.read_reply(payload).map(|reply| reply.protobuf)
    }

    fn repeatable(&self, request: &[u8]) -> bool {
        self.repetition.allows(&self.request, request)
    }
}

impl fmt::Debug for JsonCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = f.debug_struct("JsonCodec");
        names.field("request", &self.request.full_name()).field("reply", &self.reply.full_name());
        names.field("body", &self.body.as_ref().map(FieldDescriptor::name));
        names.field("response_body", &self.response_body.as_ref().map(FieldDescriptor::name));
        names.finish_non_exhaustive()
    }
}
