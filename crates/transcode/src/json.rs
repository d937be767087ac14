//! Payloads in proto3 JSON, by descriptors. Must not know any message but through its descriptor.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message as _;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage as _,
    SerializeOptions,
};
use serde_json::value::RawValue;
use serde_path_to_error::Track;

use crate::{Codec, CodecError, Repetition, decode};

/// Initial buffer in bytes; most payloads fit into it.
const SPACE: usize = 512;
/// Zeros and false are written, for readers without the proto.
const WRITE: SerializeOptions = SerializeOptions::new().skip_default_fields(false);
/// Fields of newer versions of the service are ignored.
const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);
/// The package of the types that have a JSON form of their own.
const WELL_KNOWN: &str = "google.protobuf";

/// The codec of an rpc whose payloads are proto3 JSON.
///
/// Payloads are written with camelCase names and with every field that has no presence, also where it has its default.
/// They are read with camelCase or original names; fields that are unknown are ignored, as are enum values whose names
/// are unknown. It is made of a library's dynamic messages: correct, and several times slower than generated types.
///
/// Two deviations from the specification are the library's: an unsigned 64-bit integer one above its range is read as
/// its maximum, and of a field that occurs twice the last value is taken.
#[derive(Clone)]
pub struct JsonCodec {
    request: MessageDescriptor,
    reply: MessageDescriptor,
    body: Option<FieldDescriptor>,
    repetition: Repetition,
}

/// A field that cannot be the payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The request has no field of that name.
    #[error("the request {message} has no field {field:?}")]
    UnknownField {
        /// The full name of the request message.
        message: String,
        /// The name of the field.
        field: String,
    },
    /// The request is a well-known type, whose JSON form has no fields.
    #[error("the request {message} is a well-known type: its JSON form has no fields")]
    WellKnownType {
        /// The full name of the request message.
        message: String,
    },
}

impl JsonCodec {
    /// A codec for these messages: payloads are the whole messages.
    pub fn new(request: MessageDescriptor, reply: MessageDescriptor, repetition: Repetition) -> JsonCodec {
        JsonCodec { request, reply, body: None, repetition }
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
        let message = || self.request.full_name().to_owned();
        if self.request.package_name() == WELL_KNOWN {
            return Err(BodyError::WellKnownType { message: message() });
        }
        let Some(body) = self.request.get_field_by_name(field) else {
            return Err(BodyError::UnknownField { message: message(), field: field.to_owned() });
        };
        Ok(JsonCodec { body: Some(body), ..self })
    }
}

impl Codec for JsonCodec {
    fn request(&self, protobuf: &[u8]) -> Result<Vec<u8>, CodecError> {
        let message = decode(&self.request, protobuf)?;
        match &self.body {
            None => write(&message),
            Some(field) => write_field(message, field),
        }
    }

    fn reply(&self, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
        // Validated once for the whole text: given bytes, the library validates each string.
        let text = std::str::from_utf8(payload).map_err(|error| CodecError::new("", &error.to_string()))?;
        let mut json = serde_json::Deserializer::from_str(text);
        let message = DynamicMessage::deserialize_with_options(self.reply.clone(), &mut json, &READ);
        let message = message.and_then(|message| json.end().map(|()| message));
        let message = message.map_err(|error| unreadable(&self.reply, text, &error))?;
        Ok(message.encode_to_vec())
    }

    fn repeatable(&self, request: &[u8]) -> bool {
        self.repetition.allows(&self.request, request)
    }
}

impl fmt::Debug for JsonCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = f.debug_struct("JsonCodec");
        names.field("request", &self.request.full_name()).field("reply", &self.reply.full_name());
        names.field("body", &self.body.as_ref().map(FieldDescriptor::name)).finish_non_exhaustive()
    }
}

fn write(message: &DynamicMessage) -> Result<Vec<u8>, CodecError> {
    let mut json = serde_json::Serializer::new(Vec::with_capacity(SPACE));
    match message.serialize_with_options(&mut json, &WRITE) {
        Ok(()) => Ok(json.into_inner()),
        Err(error) => Err(unwritable(message, &error)),
    }
}

/// Writes a message that has this field alone, and takes the field's value out of it: the library writes no others.
fn write_field(mut message: DynamicMessage, field: &FieldDescriptor) -> Result<Vec<u8>, CodecError> {
    let mut alone = DynamicMessage::new(message.descriptor());
    if let Some(value) = message.take_field(field) {
        alone.set_field(field, value);
    }
    let json = write(&alone)?;
    let whole = |error: serde_json::Error| CodecError::new(field.name(), &error.to_string());
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(&json).map_err(whole)?;
    // Fields that are unset and have presence are left out.
    let value = fields.get(field.json_name()).map_or("null", |value| value.get());
    Ok(value.as_bytes().to_vec())
}

/// Where a message cannot be written. Writes it a second time, because tracking the path takes time and few fail. The
/// path has the names of the proto: those that the caller knows.
fn unwritable(message: &DynamicMessage, error: &serde_json::Error) -> CodecError {
    let (mut track, mut json) = (Track::new(), serde_json::Serializer::new(Vec::new()));
    let tracked = serde_path_to_error::Serializer::new(&mut json, &mut track);
    let options = WRITE.use_proto_field_name(true);
    let path = match message.serialize_with_options(tracked, &options) {
        Ok(()) => String::new(),
        Err(_) => track.path().to_string(),
    };
    CodecError::new(&path, &error.to_string())
}

/// Where a payload cannot be read. Reads it a second time, for the same reason. A text that is not JSON at all has no
/// path.
fn unreadable(message: &MessageDescriptor, text: &str, error: &serde_json::Error) -> CodecError {
    if !error.is_data() {
        return CodecError::new("", &error.to_string());
    }
    let (mut track, mut json) = (Track::new(), serde_json::Deserializer::from_str(text));
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let path = match DynamicMessage::deserialize_with_options(message.clone(), tracked, &READ) {
        Ok(_) => String::new(),
        Err(_) => track.path().to_string(),
    };
    CodecError::new(&path, &error.to_string())
}
