//! Reads one scalar field of a message in the protobuf encoding, by its path. Must not know what the value is for.

use std::fmt;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use crate::CodecError;
use crate::fault::{Outcome, data};
use crate::record::{Range, Records};

/// The most messages around a field.
const DEPTH: usize = 8;
/// The deepest groups that are skipped.
const GROUPS: u32 = 100;

/// A scalar field of a message, or of a message within it: `book.author.id`.
#[derive(Debug, Clone)]
pub struct FieldPath {
    path: String,
    /// The fields that are messages, from the outermost.
    messages: Vec<Step>,
    field: FieldDescriptor,
    last: Step,
}

/// A field by its number, and the others of its oneof, each of which unsets it.
#[derive(Debug, Clone)]
struct Step {
    number: u32,
    rivals: Vec<u32>,
}

/// The value of a scalar field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// An integer of any type, or a number of an enum that has no name.
    Number(i128),
    /// A bool.
    Bool(bool),
    /// The name of an enum's value.
    Name(String),
}

/// What is at a path in one message.
enum Found {
    Scalar(Scalar),
    /// The field is not set.
    Nothing,
    /// The message that would have the field is not set.
    NoMessage,
}

/// Why a path names no scalar field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldPathError {
    /// No field of this name. The names that there are.
    Unknown(String, Vec<String>),
    /// The field is a list, a map, a message, bytes or a number with a fraction.
    NotScalar(String),
    /// A part of the path before its end is no message.
    NoMessage(String),
    /// There are more than 8 parts.
    TooDeep,
}

impl FieldPath {
    /// The field at this path of names joined by dots, as the proto writes them.
    ///
    /// # Errors
    ///
    /// If it names no field, or one that is not a string, an integer, a bool or an enum.
    pub fn new(message: &MessageDescriptor, path: &str) -> Result<FieldPath, FieldPathError> {
        let names: Vec<&str> = path.split('.').collect();
        let Some((last, outer)) = names.split_last().filter(|(_, outer)| outer.len() < DEPTH) else {
            return Err(FieldPathError::TooDeep);
        };
        let (mut message, mut messages) = (message.clone(), Vec::new());
        for name in outer {
            let field = find(&message, name)?;
            match field.kind() {
                Kind::Message(inner) if !field.is_list() && !field.is_map() && !field.is_group() => {
                    messages.push(Step::of(&field));
                    message = inner;
                }
                _ => return Err(FieldPathError::NoMessage((*name).to_owned())),
            }
        }
        let field = find(&message, last)?;
        let scalar = !matches!(field.kind(), Kind::Message(_) | Kind::Bytes | Kind::Double | Kind::Float);
        match scalar && !field.is_list() {
            true => Ok(FieldPath { path: path.to_owned(), messages, last: Step::of(&field), field }),
            false => Err(FieldPathError::NotScalar((*last).to_owned())),
        }
    }

    /// The path as it was given.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether its value is an integer.
    pub fn is_integer(&self) -> bool {
        !matches!(self.field.kind(), Kind::String | Kind::Bool | Kind::Enum(_))
    }

    /// Whether its value is a string.
    pub fn is_string(&self) -> bool {
        self.field.kind() == Kind::String
    }

    /// Whether its value is a bool.
    pub fn is_bool(&self) -> bool {
        self.field.kind() == Kind::Bool
    }

    /// Whether it can be told from its default that it is not set.
    pub fn has_presence(&self) -> bool {
        self.field.supports_presence()
    }

    /// The field's value in a message. None: it is not set; a field without presence has its default then.
    ///
    /// # Errors
    ///
    /// If the bytes are not in the protobuf encoding, or the value is not one of the field's type.
    pub fn read(&self, message: &[u8]) -> Result<Option<Scalar>, CodecError> {
        let found = self.find(message).map_err(|fault| CodecError::from(fault.under(&self.path)))?;
        Ok(match found {
            Found::Scalar(scalar) => Some(scalar),
            Found::Nothing if !self.field.supports_presence() => Some(self.default()),
            Found::Nothing | Found::NoMessage => None,
        })
    }

    fn default(&self) -> Scalar {
        match self.field.kind() {
            Kind::String => Scalar::Text(String::new()),
            Kind::Bool => Scalar::Bool(false),
            Kind::Enum(names) => named(&names, 0),
            _ => Scalar::Number(0),
        }
    }

    fn find(&self, message: &[u8]) -> Outcome<Found> {
        // A message that occurs several times is their sum: what a later one has counts.
        let mut parts = vec![Range { from: 0, to: message.len() }];
        for step in &self.messages {
            let mut inner = Vec::new();
            each(message, &parts, step, |found| {
                let Some((wire_type, records)) = found else {
                    inner.clear();
                    return Ok(());
                };
                let value = records.value(wire_type)?;
                match wire_type {
                    2 => inner.push(value.range),
                    _ => return data("is not a message on the wire"),
                }
                Ok(())
            })?;
            parts = inner;
        }
        if parts.is_empty() {
            return Ok(Found::NoMessage);
        }
        let mut found = Found::Nothing;
        each(message, &parts, &self.last, |record| {
            let Some((wire_type, records)) = record else {
                found = Found::Nothing;
                return Ok(());
            };
            let value = records.value(wire_type)?;
            let bytes = message.get(value.range.from..value.range.to);
            found = Found::Scalar(self.scalar(wire_type, value.number, bytes)?);
            Ok(())
        })?;
        Ok(found)
    }

    fn scalar(&self, wire_type: u32, number: u64, bytes: Option<&[u8]>) -> Outcome<Scalar> {
        let low = number as u32;
        let (expected, scalar) = match self.field.kind() {
            Kind::String => {
                let text = std::str::from_utf8(bytes.unwrap_or_default());
                let Ok(text) = text else { return data("is not UTF-8") };
                (2, Scalar::Text(text.to_owned()))
            }
            Kind::Bool => (0, Scalar::Bool(number != 0)),
            Kind::Enum(names) => (0, named(&names, low as i32)),
            Kind::Int32 => (0, Scalar::Number((low as i32).into())),
            Kind::Int64 => (0, Scalar::Number((number as i64).into())),
            Kind::Uint32 => (0, Scalar::Number(low.into())),
            Kind::Uint64 => (0, Scalar::Number(number.into())),
            Kind::Sint32 => (0, Scalar::Number((((low >> 1) as i32) ^ -((low & 1) as i32)).into())),
            Kind::Sint64 => (0, Scalar::Number((((number >> 1) as i64) ^ -((number & 1) as i64)).into())),
            Kind::Fixed32 => (5, Scalar::Number(low.into())),
            Kind::Sfixed32 => (5, Scalar::Number((low as i32).into())),
            Kind::Fixed64 => (1, Scalar::Number(number.into())),
            Kind::Sfixed64 => (1, Scalar::Number((number as i64).into())),
            Kind::Bytes | Kind::Message(_) | Kind::Double | Kind::Float => return data("is not a scalar"),
        };
        if wire_type == expected { Ok(scalar) } else { data("has another type on the wire") }
    }
}

fn named(names: &EnumDescriptor, number: i32) -> Scalar {
    match names.get_value(number) {
        Some(value) => Scalar::Name(value.name().to_owned()),
        None => Scalar::Number(number.into()),
    }
}

fn find(message: &MessageDescriptor, name: &str) -> Result<FieldDescriptor, FieldPathError> {
    message.get_field_by_name(name).ok_or_else(|| {
        let names = message.fields().map(|field| field.name().to_owned()).collect();
        FieldPathError::Unknown(name.to_owned(), names)
    })
}

impl Step {
    fn of(field: &FieldDescriptor) -> Step {
        let others =
            field.containing_oneof().into_iter().flat_map(|oneof| oneof.fields().collect::<Vec<_>>());
        let number = field.number();
        Step { number, rivals: others.map(|other| other.number()).filter(|other| *other != number).collect() }
    }
}

/// Calls `found` for each record of a field, behind its tag, and without one where the field is unset again.
fn each(
    message: &[u8],
    parts: &[Range],
    step: &Step,
    mut found: impl FnMut(Option<(u32, &mut Records<'_>)>) -> Outcome<()>,
) -> Outcome<()> {
    for part in parts {
        let mut records = Records::new(message, *part);
        while !records.is_at_end() {
            let tag = records.tag()?;
            if tag >> 3 == step.number {
                found(Some((tag & 7, &mut records)))?;
                continue;
            }
            if step.rivals.contains(&(tag >> 3)) {
                found(None)?;
            }
            records.skip(tag, GROUPS)?;
        }
    }
    Ok(())
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Text(text) | Scalar::Name(text) => f.write_str(text),
            Scalar::Number(number) => number.fmt(f),
            Scalar::Bool(bool) => bool.fmt(f),
        }
    }
}

impl fmt::Display for FieldPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldPathError::Unknown(name, names) if names.is_empty() => {
                write!(f, "there is no field {name:?}, nor any other")
            }
            FieldPathError::Unknown(name, names) => {
                write!(f, "there is no field {name:?}; there are: {}", names.join(", "))
            }
            FieldPathError::NotScalar(name) => {
                write!(f, "the field {name:?} is not one string, integer, bool or enum")
            }
            FieldPathError::NoMessage(name) => write!(f, "the field {name:?} is not one message"),
            FieldPathError::TooDeep => write!(f, "it has more than {DEPTH} parts"),
        }
    }
}

impl std::error::Error for FieldPathError {}
