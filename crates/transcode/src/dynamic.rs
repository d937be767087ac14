//! Proto3 JSON by the library's dynamic messages: for what plans do not have, and the oracle of their tests. Must not know
//! about plans.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage as _,
    SerializeOptions,
};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use serde_path_to_error::Track;

use crate::{CodecError, decode};

/// Initial buffer in bytes; most payloads fit into it.
const SPACE: usize = 512;
/// Zeros and false are written, for readers without the proto.
const WRITE: SerializeOptions = SerializeOptions::new().skip_default_fields(false);
/// Fields of newer versions of the service are ignored.
const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);

/// Converts the encoding of a message, or of this field of it alone, to JSON.
pub(crate) fn to_json(
    message: &MessageDescriptor,
    body: Option<&FieldDescriptor>,
    protobuf: &[u8],
) -> Result<Vec<u8>, CodecError> {
    let message = decode(message, protobuf)?;
    match body {
        None => write(&message),
        Some(field) => write_field(message, field),
    }
}

/// Converts JSON to the encoding of a message; or, if it is the value of this field alone, of a message that has no other.
pub(crate) fn to_wire(
    message: &MessageDescriptor,
    body: Option<&FieldDescriptor>,
    json: &[u8],
) -> Result<Vec<u8>, CodecError> {
    // Validated once for the whole text: given bytes, the library validates each string.
    let text = std::str::from_utf8(json).map_err(|error| CodecError::new("", &error.to_string()))?;
    match body {
        None => read(message, text),
        Some(field) => read_field(message, field, text),
    }
}

/// Reads an object with this member alone: the library reads no fields by themselves.
fn read_field(
    message: &MessageDescriptor,
    field: &FieldDescriptor,
    text: &str,
) -> Result<Vec<u8>, CodecError> {
    // Before it is put into an object: a text that is more than one value, such as `1,"other":2`, would become further
    // members.
    let value: &RawValue =
        serde_json::from_str(text).map_err(|error| CodecError::new("", &error.to_string()))?;
    let name = Json::from(field.json_name());
    read(message, &format!("{{{name}:{value}}}")).map_err(|error| {
        let inside = error.path().strip_prefix(field.json_name());
        inside.map_or(error.clone(), |rest| CodecError::new(&format!("{}{rest}", field.name()), error.why()))
    })
}

fn read(message: &MessageDescriptor, text: &str) -> Result<Vec<u8>, CodecError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = DynamicMessage::deserialize_with_options(message.clone(), &mut json, &READ);
    let read = read.and_then(|read| json.end().map(|()| read));
    Ok(read.map_err(|error| unreadable(message, text, &error))?.encode_to_vec())
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
