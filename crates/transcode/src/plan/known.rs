//! The well-known types that have a JSON form of their own. Must not know how they are read or written.

use prost_reflect::{Kind, MessageDescriptor};

/// What JSON form a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An object of its fields.
    Fields,
    /// The value of its only field.
    Alone,
    /// The value of whichever field is set.
    Value,
    Timestamp,
    Duration,
    FieldMask,
    /// One that plans do not have: `Any`, and types that only have the name of a well-known one.
    Unknown,
}

/// The forms, with the fields that a message has to have for it: number, and whether the kind is the right one.
pub(super) fn form(message: &MessageDescriptor) -> Form {
    let (form, fields): (Form, &[Shape]) = match message.full_name() {
        "google.protobuf.Any" => return Form::Unknown,
        "google.protobuf.Timestamp" => (Form::Timestamp, &[Shape::Int64, Shape::Int32]),
        "google.protobuf.Duration" => (Form::Duration, &[Shape::Int64, Shape::Int32]),
        "google.protobuf.FieldMask" => (Form::FieldMask, &[Shape::Strings]),
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => (Form::Alone, &[Shape::Scalar]),
        "google.protobuf.Struct" => (Form::Alone, &[Shape::Map]),
        "google.protobuf.ListValue" => (Form::Alone, &[Shape::Messages]),
        "google.protobuf.Value" => (
            Form::Value,
            &[Shape::Null, Shape::Scalar, Shape::Scalar, Shape::Scalar, Shape::Message, Shape::Message],
        ),
        _ => return Form::Fields,
    };
    if has_shape(message, fields) { form } else { Form::Unknown }
}

/// A kind of field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Int32,
    Int64,
    Scalar,
    Null,
    Message,
    Strings,
    Messages,
    Map,
}

/// Whether the fields have the numbers 1, 2 and so on, and these kinds.
fn has_shape(message: &MessageDescriptor, shapes: &[Shape]) -> bool {
    let mut fields: Vec<_> = message.fields().collect();
    fields.sort_by_key(prost_reflect::FieldDescriptor::number);
    fields.len() == shapes.len()
        && fields.iter().zip(1..).zip(shapes).all(|((field, number), shape)| {
            let found = match field.kind() {
                _ if field.is_map() => Shape::Map,
                Kind::String if field.is_list() => Shape::Strings,
                Kind::Message(_) if field.is_list() => Shape::Messages,
                _ if field.is_list() => return false,
                Kind::Message(_) => Shape::Message,
                Kind::Enum(kind) if kind.full_name() == "google.protobuf.NullValue" => Shape::Null,
                Kind::Int32 if *shape == Shape::Int32 => Shape::Int32,
                Kind::Int64 if *shape == Shape::Int64 => Shape::Int64,
                _ => Shape::Scalar,
            };
            field.number() == number && found == *shape
        })
}
