//! Plans: message descriptors as flat tables, which conversions follow. Must not contain a payload, nor read one.
//!
//! What each field needs at every call is in [`Field`]; names, which only errors and unexpected keys need, are apart.

mod compile;
mod known;
mod piece;

pub(crate) use compile::Unplanned;
pub(crate) use piece::{Bits, Names, Piece};

/// What a value is, on the wire and in JSON. The numbers are those of tables in the same plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    /// A double that is neither infinite nor NaN: JSON's own number.
    Finite,
    String,
    Bytes,
    Enum(u32),
    /// `google.protobuf.NullValue`.
    Null,
    Message(u32),
    /// A message whose JSON is that of its only field: wrappers, `Struct` and `ListValue`.
    Alone(u32),
    /// `google.protobuf.Value`: its JSON is that of the field that is set.
    Value(u32),
    Timestamp,
    Duration,
    FieldMask,
}

impl Op {
    /// The wire type of one value.
    #[inline]
    pub(crate) fn wire_type(self) -> u8 {
        match self {
            Op::Double | Op::Finite | Op::Fixed64 | Op::Sfixed64 => 1,
            Op::Float | Op::Fixed32 | Op::Sfixed32 => 5,
            Op::String | Op::Bytes => 2,
            op if op.is_message() => 2,
            _ => 0,
        }
    }

    #[inline]
    pub(crate) fn is_message(self) -> bool {
        matches!(
            self,
            Op::Message(_) | Op::Alone(_) | Op::Value(_) | Op::Timestamp | Op::Duration | Op::FieldMask
        )
    }

    /// Whether `null` is a value, instead of the absence of one.
    #[inline]
    pub(crate) fn has_null(self) -> bool {
        matches!(self, Op::Null | Op::Value(_))
    }
}

/// How often a field occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Card {
    /// Without presence: absent is the same as its default.
    Implicit,
    Explicit,
    /// A member of the message's oneof of this number.
    Oneof(u16),
    Repeated {
        packed: bool,
    },
    /// The field's operation is that of the values.
    Map {
        key: Op,
    },
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// The tag of the record that an encoder makes: packed where the field is.
    pub(crate) tag: u32,
    pub(crate) op: Op,
    pub(crate) card: Card,
    /// The tag, if it has one byte and the field is a single string or uint32; else what is no byte.
    pub(crate) quick: u16,
    /// The tag, encoded.
    pub(crate) head: Piece,
    /// `,"name":`
    pub(crate) key: Piece,
    /// `,"name":0`; empty if nothing is written for an absent field.
    pub(crate) absent: Piece,
    /// `"name":`, as most encoders write it.
    pub(crate) expected: Piece,
}

/// What is needed of a field only in errors and where it stands alone.
#[derive(Debug)]
pub(crate) struct Cold {
    /// The name in the proto.
    pub(crate) name: Box<str>,
    /// The JSON of an absent field: its default, or `null` if it has presence.
    pub(crate) default: Box<str>,
}

#[derive(Debug, Default)]
pub(crate) struct Message {
    /// By their numbers, ascending.
    pub(crate) fields: Vec<Field>,
    pub(crate) cold: Vec<Cold>,
    /// For each field, and for the end: the index of the first field from there on that is written if it is absent.
    written: Vec<u16>,
    /// The indexes of the fields with small numbers; [`NONE`] for numbers that are free.
    dense: Vec<u16>,
    names: Names<u16>,
}

/// What is no index of a field.
const NONE: u16 = u16::MAX;

impl Message {
    /// The index of the field of this number.
    #[inline]
    pub(crate) fn find(&self, number: u32) -> Option<usize> {
        if let Some(index) = self.dense.get(number as usize) {
            return (*index != NONE).then_some(usize::from(*index));
        }
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }

    /// The index of the field of this name, in either spelling.
    pub(crate) fn named(&self, name: &[u8]) -> Option<usize> {
        self.names.find(name).map(usize::from)
    }

    /// The name of the field at this index, as the proto has it.
    pub(crate) fn name(&self, index: usize) -> &str {
        self.cold.get(index).map_or("", |cold| &cold.name)
    }

    /// Writes the defaults of the fields from one index to before another.
    #[inline]
    pub(crate) fn write_absent(&self, store: &[u8], from: usize, to: usize, out: &mut Vec<u8>) {
        let next = |index: usize| self.written.get(index).map_or(to, |index| usize::from(*index));
        let mut index = next(from);
        while index < to {
            self.fields[index].absent.write(store, out);
            index = next(index + 1);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Enum {
    /// The quoted names, by number; of several names of a number, the first.
    by_number: Vec<(i32, Piece)>,
    /// Whether the numbers are 0, 1, 2 and so on.
    is_dense: bool,
    names: Names<i32>,
}

impl Enum {
    /// The quoted name of a number.
    #[inline]
    pub(crate) fn name(&self, number: i32) -> Option<Piece> {
        let index = if self.is_dense {
            usize::try_from(number).ok()?
        } else {
            self.by_number.binary_search_by_key(&number, |(number, _)| *number).ok()?
        };
        self.by_number.get(index).map(|(_, name)| *name)
    }

    pub(crate) fn number(&self, name: &[u8]) -> Option<i32> {
        self.names.find(name)
    }
}

/// A message and all that it can contain.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) root: Op,
    pub(crate) messages: Vec<Message>,
    pub(crate) enums: Vec<Enum>,
    /// The store of all texts.
    pub(crate) texts: Vec<u8>,
}

impl Plan {
    /// The table of a message. The number is one of this plan's.
    #[inline]
    pub(crate) fn message(&self, number: u32) -> &Message {
        &self.messages[number as usize]
    }

    /// The index of a field of the root, if the root is a message with fields of its own.
    pub(crate) fn root_field(&self, number: u32) -> Option<usize> {
        match self.root {
            Op::Message(root) => self.message(root).find(number),
            _ => None,
        }
    }
}
