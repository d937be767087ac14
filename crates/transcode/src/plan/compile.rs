//! Compiles descriptors into plans. Must not recurse: descriptors may refer to themselves, and be nested without limit.

use std::collections::HashMap;

use prost_reflect::{Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Syntax};

use super::known::{Form, form};
use super::{Card, Cold, Enum, Field, Message, NONE, Names, Op, Piece, Plan};

/// The most messages of a plan.
const MESSAGES: usize = 10_000;
/// The most fields of a message.
const FIELDS: usize = 4_096;
/// The largest field number that is found by an index into a table.
const DENSE: u32 = 255;

/// Why there is no plan for a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {why}")]
pub(crate) struct Unplanned {
    /// The full name of a message, an enum or a field.
    name: String,
    why: &'static str,
}

impl Unplanned {
    fn new(name: &str, why: &'static str) -> Unplanned {
        Unplanned { name: name.to_owned(), why }
    }
}

impl Plan {
    /// The plan of a message.
    ///
    /// # Errors
    ///
    /// If the message contains, at any depth, what plans do not have: proto2, groups, `google.protobuf.Any`, or more
    /// than 10,000 messages or 4,096 fields in one.
    pub(crate) fn of(message: &MessageDescriptor) -> Result<Plan, Unplanned> {
        let plan = Plan { root: Op::Bool, messages: Vec::new(), enums: Vec::new(), texts: Vec::new() };
        let mut compiler =
            Compiler { plan, numbers: HashMap::new(), waiting: Vec::new(), enums: HashMap::new() };
        compiler.plan.root = compiler.message(message)?;
        // Compiling one may add others.
        while let Some(message) = compiler.waiting.get(compiler.plan.messages.len()).cloned() {
            let table = compiler.table(&message)?;
            compiler.plan.messages.push(table);
        }
        Ok(compiler.plan)
    }
}

struct Compiler {
    plan: Plan,
    /// The numbers of messages by their full names.
    numbers: HashMap<String, u32>,
    /// Messages by their numbers; those beyond the tables of the plan are not compiled yet.
    waiting: Vec<MessageDescriptor>,
    enums: HashMap<String, u32>,
}

impl Compiler {
    /// The operation of a message, which is put on the list if it is new.
    fn message(&mut self, message: &MessageDescriptor) -> Result<Op, Unplanned> {
        let unplanned = |why| Unplanned::new(message.full_name(), why);
        let table: fn(u32) -> Op = match form(message) {
            Form::Timestamp => return Ok(Op::Timestamp),
            Form::Duration => return Ok(Op::Duration),
            Form::FieldMask => return Ok(Op::FieldMask),
            Form::Unknown => return Err(unplanned("has no plan")),
            Form::Fields => Op::Message,
            Form::Alone => Op::Alone,
            Form::Value => Op::Value,
        };
        if let Some(number) = self.numbers.get(message.full_name()) {
            return Ok(table(*number));
        }
        if self.waiting.len() >= MESSAGES {
            return Err(unplanned("is one message too many"));
        }
        let number = u32::try_from(self.waiting.len()).map_err(|_| unplanned("is one message too many"))?;
        self.waiting.push(message.clone());
        self.numbers.insert(message.full_name().to_owned(), number);
        Ok(table(number))
    }

    fn table(&mut self, message: &MessageDescriptor) -> Result<Message, Unplanned> {
        if message.parent_file().syntax() != Syntax::Proto3 {
            return Err(Unplanned::new(message.full_name(), "is not proto3"));
        }
        let mut descriptors: Vec<FieldDescriptor> = message.fields().collect();
        descriptors.sort_by_key(FieldDescriptor::number);
        if descriptors.len() > FIELDS {
            return Err(Unplanned::new(message.full_name(), "has too many fields"));
        }
        let is_value = form(message) == Form::Value;
        let oneofs: HashMap<String, u16> =
            message.oneofs().zip(0..).map(|(oneof, number)| (oneof.full_name().to_owned(), number)).collect();
        let mut table = Message::default();
        for descriptor in &descriptors {
            let (mut field, cold) = self.field(descriptor, &oneofs)?;
            if is_value && field.op == Op::Double {
                field.op = Op::Finite;
            }
            table.fields.push(field);
            table.cold.push(cold);
        }
        let last = table.fields.last().map_or(0, |field| field.number.min(DENSE));
        table.dense = (0..=last).map(|number| index_of(&table.fields, number)).collect();
        table.written = written(&table.fields);
        // Names in JSON win over those of the proto.
        let json =
            descriptors.iter().zip(0..).map(|(field, index)| (field.json_name().as_bytes().into(), index));
        let proto = descriptors.iter().zip(0..).map(|(field, index)| (field.name().as_bytes().into(), index));
        table.names = Names::new(json.chain(proto));
        Ok(table)
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        oneofs: &HashMap<String, u16>,
    ) -> Result<(Field, Cold), Unplanned> {
        let unplanned = |why| Unplanned::new(field.full_name(), why);
        if field.is_group() || field.cardinality() == Cardinality::Required {
            return Err(unplanned("is of proto2"));
        }
        let kind = field.kind();
        let (op, card) = match &kind {
            Kind::Message(entry) if field.is_map() => {
                let key = self.op(&entry.map_entry_key_field().kind())?;
                (self.op(&entry.map_entry_value_field().kind())?, Card::Map { key })
            }
            kind => (self.op(kind)?, card(field, oneofs)),
        };
        let wire_type = match card {
            Card::Repeated { packed: true } | Card::Map { .. } => 2,
            _ => op.wire_type(),
        };
        let tag = field.number() << 3 | u32::from(wire_type);
        let mut head = Vec::new();
        prost::encoding::encode_varint(u64::from(tag), &mut head);
        let default = self.default(op, card).ok_or_else(|| unplanned("has no default"))?;
        let name = serde_json::to_string(field.json_name()).map_err(|_| unplanned("has no name"))?;
        let has_presence = matches!(card, Card::Explicit | Card::Oneof(_));
        let absent = if has_presence { String::new() } else { format!(",{name}:{default}") };
        let is_quick =
            matches!(card, Card::Implicit | Card::Explicit) && matches!(op, Op::String | Op::Uint32);
        let quick = u16::try_from(tag).ok().filter(|tag| is_quick && *tag < 128).unwrap_or(u16::MAX);
        let mut piece = |text: &[u8]| {
            Piece::add(&mut self.plan.texts, text).ok_or_else(|| unplanned("is one text too many"))
        };
        let hot = Field {
            number: field.number(),
            tag,
            op,
            card,
            quick,
            head: piece(&head)?,
            key: piece(format!(",{name}:").as_bytes())?,
            absent: piece(absent.as_bytes())?,
            expected: piece(format!("{name}:").as_bytes())?,
        };
        Ok((hot, Cold { name: field.name().into(), default: default.into() }))
    }

    fn op(&mut self, kind: &Kind) -> Result<Op, Unplanned> {
        Ok(match kind {
            Kind::Bool => Op::Bool,
            Kind::Int32 => Op::Int32,
            Kind::Int64 => Op::Int64,
            Kind::Uint32 => Op::Uint32,
            Kind::Uint64 => Op::Uint64,
            Kind::Sint32 => Op::Sint32,
            Kind::Sint64 => Op::Sint64,
            Kind::Fixed32 => Op::Fixed32,
            Kind::Fixed64 => Op::Fixed64,
            Kind::Sfixed32 => Op::Sfixed32,
            Kind::Sfixed64 => Op::Sfixed64,
            Kind::Float => Op::Float,
            Kind::Double => Op::Double,
            Kind::String => Op::String,
            Kind::Bytes => Op::Bytes,
            Kind::Enum(kind) if kind.full_name() == "google.protobuf.NullValue" => Op::Null,
            Kind::Enum(kind) => Op::Enum(self.enumeration(kind)?),
            Kind::Message(message) => self.message(message)?,
        })
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor) -> Result<u32, Unplanned> {
        if let Some(number) = self.enums.get(descriptor.full_name()) {
            return Ok(*number);
        }
        let unplanned = |why| Unplanned::new(descriptor.full_name(), why);
        if descriptor.parent_file().syntax() != Syntax::Proto3 {
            return Err(unplanned("is not proto3"));
        }
        let mut by_number = Vec::new();
        // As they are declared; the library sorts them.
        for value in &descriptor.enum_descriptor_proto().value {
            let name = serde_json::to_string(value.name()).map_err(|_| unplanned("has no name"))?;
            let piece = Piece::add(&mut self.plan.texts, name.as_bytes());
            by_number.push((value.number(), piece.ok_or_else(|| unplanned("is one text too many"))?));
        }
        // A stable sort: of several names of a number, the first stays.
        by_number.sort_by_key(|(number, _)| *number);
        by_number.dedup_by_key(|(number, _)| *number);
        let is_dense = by_number.iter().zip(0..).all(|((number, _), index)| *number == index);
        let names =
            Names::new(descriptor.values().map(|value| (value.name().as_bytes().into(), value.number())));
        let number = u32::try_from(self.plan.enums.len()).map_err(|_| unplanned("is one too many"))?;
        self.plan.enums.push(Enum { by_number, is_dense, names });
        self.enums.insert(descriptor.full_name().to_owned(), number);
        Ok(number)
    }

    /// The JSON of an absent field; None for an enum without a zero.
    fn default(&self, op: Op, card: Card) -> Option<String> {
        let text = match (card, op) {
            (Card::Repeated { .. }, _) => "[]",
            (Card::Map { .. }, _) => "{}",
            (Card::Explicit | Card::Oneof(_), _) => "null",
            (Card::Implicit, Op::Bool) => "false",
            (Card::Implicit, Op::String | Op::Bytes) => "\"\"",
            (Card::Implicit, Op::Float | Op::Double | Op::Finite) => "0.0",
            (Card::Implicit, Op::Int64 | Op::Uint64 | Op::Sint64 | Op::Fixed64 | Op::Sfixed64) => "\"0\"",
            (Card::Implicit, Op::Enum(number)) => {
                let name = self.plan.enums.get(number as usize)?.name(0)?;
                return String::from_utf8(name.text(&self.plan.texts).to_vec()).ok();
            }
            (Card::Implicit, Op::Null) => "null",
            (Card::Implicit, _) => "0",
        };
        Some(text.to_owned())
    }
}

fn card(field: &FieldDescriptor, oneofs: &HashMap<String, u16>) -> Card {
    let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
    match oneof.and_then(|oneof| oneofs.get(oneof.full_name())) {
        Some(number) => Card::Oneof(*number),
        None if field.is_list() => Card::Repeated { packed: field.is_packed() },
        None if field.supports_presence() => Card::Explicit,
        None => Card::Implicit,
    }
}

fn index_of(fields: &[Field], number: u32) -> u16 {
    let found = fields.binary_search_by_key(&number, |field| field.number).ok();
    found.and_then(|index| u16::try_from(index).ok()).unwrap_or(NONE)
}

/// For each field, and for the end: the first from there on that is written if it is absent.
fn written(fields: &[Field]) -> Vec<u16> {
    let mut next = NONE;
    let mut found = vec![next];
    for (index, field) in (0..).zip(fields).collect::<Vec<(u16, _)>>().into_iter().rev() {
        if field.absent.len() > 0 {
            next = index;
        }
        found.push(next);
    }
    found.reverse();
    found
}
