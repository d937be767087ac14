//! Protobuf to proto3 JSON: one pass over the records, and a second by an index if they are not in the sequence of the
//! plan. Must not recurse but into nested messages, nor write beyond its limit.
//!
//! The first record that is out of sequence ends the first pass as a whole. If each message were tried in sequence first
//! and then read again, the time would double with each level.

mod entries;
mod index;
mod numbers;
mod strings;
mod times;

use crate::fault::{DEPTH, Fault, Kind, Outcome, data, deeper};
use crate::plan::{Bits, Card, Field, Message, Op, Plan};
use crate::record::{Range, Records, Value};

/// The least initial buffer in bytes; most payloads fit into it.
const SPACE: usize = 512;

/// What was written.
#[derive(Debug)]
pub(crate) struct Json {
    pub(crate) text: Vec<u8>,
    /// How many records, elements and entries were read; in both passes if there were two.
    #[cfg_attr(not(any(test, feature = "fuzz")), expect(dead_code, reason = "tests limit it"))]
    pub(crate) steps: usize,
}

/// Converts a message, or this field of it alone. `limit` is the most bytes to write.
///
/// # Errors
///
/// If the bytes are not an encoding of the plan's message, if it has no form in JSON, or if that exceeds the limit.
pub(crate) fn convert(plan: &Plan, body: Option<usize>, protobuf: &[u8], limit: usize) -> Outcome<Json> {
    let space = protobuf.len().saturating_mul(3).max(SPACE).min(limit);
    let mut writer =
        Writer { plan, bytes: protobuf, out: Vec::with_capacity(space), limit, steps: 0, is_indexed: false };
    match writer.root(body) {
        Err(fault) if fault.kind == Kind::Unsorted => {
            writer.out.clear();
            writer.is_indexed = true;
            writer.root(body)?;
        }
        done => done?,
    }
    writer.step()?;
    Ok(Json { text: writer.out, steps: writer.steps })
}

struct Writer<'a> {
    plan: &'a Plan,
    bytes: &'a [u8],
    out: Vec<u8>,
    limit: usize,
    steps: usize,
    /// Whether messages are read by an index.
    is_indexed: bool,
}

impl<'a> Writer<'a> {
    fn root(&mut self, body: Option<usize>) -> Outcome<()> {
        let whole = Range { from: 0, to: self.bytes.len() };
        match (self.plan.root, body) {
            (Op::Message(message), Some(field)) if self.is_indexed => {
                self.indexed_alone(message, Some(field), &[whole], DEPTH)
            }
            (Op::Message(message), Some(field)) => self.sorted_alone(message, Some(field), whole, DEPTH),
            (root, _) => self.message(root, &[whole], DEPTH),
        }
    }

    /// Counts a record, an element or an entry.
    #[inline]
    fn step(&mut self) -> Outcome<()> {
        self.steps += 1;
        if self.out.len() > self.limit { data("is too large as JSON") } else { Ok(()) }
    }

    /// A message with a JSON form of any kind, in one part or, if it is indexed, in several that are to be merged.
    fn message(&mut self, op: Op, parts: &[Range], depth: u32) -> Outcome<()> {
        let only = parts.first().copied().unwrap_or_default();
        match op {
            Op::Message(message) if self.is_indexed => self.indexed(message, parts, depth),
            Op::Message(message) => self.sorted(message, only, depth),
            Op::Alone(message) if self.is_indexed => self.indexed_alone(message, Some(0), parts, depth),
            Op::Alone(message) => self.sorted_alone(message, Some(0), only, depth),
            Op::Value(message) if self.is_indexed => self.indexed_alone(message, None, parts, depth),
            Op::Value(message) => self.sorted_alone(message, None, only, depth),
            Op::Timestamp => self.timestamp(parts, depth),
            Op::Duration => self.duration(parts, depth),
            Op::FieldMask => self.field_mask(parts, depth),
            _ => data("is not a message"),
        }
    }

    /// A message whose records are in the sequence of the plan.
    fn sorted(&mut self, message: u32, range: Range, depth: u32) -> Outcome<()> {
        let plan = self.plan;
        let table = plan.message(message);
        let mut records = Records::new(self.bytes, range);
        let start = self.out.len();
        let (mut next, mut oneofs) = (0, Bits::default());
        while !records.is_at_end() {
            self.step()?;
            if let Some(field) = table.fields.get(next)
                && self.quick(field, &mut records).map_err(|fault| fault.under(table.name(next)))?
            {
                next += 1;
                continue;
            }
            let tag = records.tag()?;
            let index = match table.fields.get(next) {
                Some(field) if field.tag == tag => next,
                _ => match table.find(tag >> 3) {
                    Some(index) if index < next => return Err(Fault::unsorted()),
                    Some(index) => index,
                    None => {
                        records.skip(tag, depth)?;
                        continue;
                    }
                },
            };
            table.write_absent(&plan.texts, next, index, &mut self.out);
            next = index + 1;
            let field = &table.fields[index];
            if let Card::Oneof(oneof) = field.card
                && !oneofs.insert(usize::from(oneof))
            {
                return Err(Fault::unsorted());
            }
            field.key.write(&plan.texts, &mut self.out);
            self.field(field, tag, &mut records, depth).map_err(|fault| fault.under(table.name(index)))?;
        }
        table.write_absent(&plan.texts, next, table.fields.len(), &mut self.out);
        self.close(start, b'{', b'}');
        Ok(())
    }

    /// Writes the expected field if it is a string or uint32 whose tag and length, or number, have one byte each.
    #[inline]
    fn quick(&mut self, field: &Field, records: &mut Records<'a>) -> Outcome<bool> {
        let rest = &records.bytes[records.at..records.end];
        let Some(&[tag, small]) = rest.first_chunk() else { return Ok(false) };
        if u16::from(tag) != field.quick || small >= 128 {
            return Ok(false);
        }
        if field.op == Op::Uint32 {
            field.key.write(&self.plan.texts, &mut self.out);
            self.small(small.into());
            records.at += 2;
            return Ok(true);
        }
        let range = Range { from: records.at + 2, to: records.at + 2 + usize::from(small) };
        if range.to > records.end {
            return Ok(false);
        }
        field.key.write(&self.plan.texts, &mut self.out);
        records.at = range.to;
        self.string(range)?;
        Ok(true)
    }

    /// Of a message whose records are in sequence, one field alone, or whichever is set. The others are read and checked.
    fn sorted_alone(&mut self, message: u32, wanted: Option<usize>, range: Range, depth: u32) -> Outcome<()> {
        let table = self.plan.message(message);
        let mut records = Records::new(self.bytes, range);
        let (mut next, mut oneofs, mut is_found) = (0, Bits::default(), false);
        while !records.is_at_end() {
            self.step()?;
            let tag = records.tag()?;
            let Some(index) = table.find(tag >> 3) else {
                records.skip(tag, depth)?;
                continue;
            };
            let is_wanted = wanted.is_none_or(|wanted| wanted == index);
            let is_set_again = match table.fields[index].card {
                Card::Oneof(oneof) => !oneofs.insert(usize::from(oneof)),
                _ => false,
            };
            // Of members of a oneof, the last counts.
            if index < next || is_set_again || is_wanted && is_found {
                return Err(Fault::unsorted());
            }
            next = index + 1;
            is_found |= is_wanted;
            let at = self.out.len();
            self.field(&table.fields[index], tag, &mut records, depth)
                .map_err(|fault| self.under_alone(message, index, fault))?;
            if !is_wanted {
                self.out.truncate(at);
            }
        }
        if !is_found {
            self.write_default(table, wanted);
        }
        Ok(())
    }

    /// A field of a message with fields has a place in the path; the field of a well-known type has none.
    #[cold]
    fn under_alone(&self, message: u32, index: usize, fault: Box<Fault>) -> Box<Fault> {
        if self.plan.root == Op::Message(message) {
            return fault.under(self.plan.message(message).name(index));
        }
        fault
    }

    fn write_default(&mut self, table: &Message, wanted: Option<usize>) {
        let cold = wanted.and_then(|index| table.cold.get(index));
        self.out.extend_from_slice(cold.map_or("null", |cold| &cold.default).as_bytes());
    }

    /// Gives its brackets to what was written with a comma before each part.
    #[inline]
    fn close(&mut self, start: usize, open: u8, close: u8) {
        match self.out.get_mut(start) {
            Some(comma) => *comma = open,
            None => self.out.push(open),
        }
        self.out.push(close);
    }

    /// The value of a field, of which the first tag has been read, and of its further records that follow directly.
    #[inline]
    fn field(&mut self, field: &Field, tag: u32, records: &mut Records<'a>, depth: u32) -> Outcome<()> {
        match field.card {
            Card::Repeated { .. } => self.list(field, tag, records, depth),
            Card::Map { key } => self.map(field, key, tag, records, depth),
            Card::Implicit | Card::Explicit | Card::Oneof(_) => {
                if tag != field.tag {
                    return data("has another wire type");
                }
                let value = records.value(tag & 7)?;
                self.value(field.op, value, depth)
            }
        }
    }

    fn list(&mut self, field: &Field, tag: u32, records: &mut Records<'a>, depth: u32) -> Outcome<()> {
        let start = self.out.len();
        let (mut tag, mut count) = (tag, 0);
        loop {
            self.elements(field, tag, records, depth, &mut count)?;
            let mut ahead = *records;
            if ahead.is_at_end() {
                break;
            }
            tag = ahead.tag()?;
            if tag >> 3 != field.number {
                break;
            }
            *records = ahead;
        }
        self.close(start, b'[', b']');
        Ok(())
    }

    /// The elements of one record. `count` is that of the elements so far.
    #[inline]
    fn elements(
        &mut self,
        field: &Field,
        tag: u32,
        records: &mut Records<'a>,
        depth: u32,
        count: &mut usize,
    ) -> Outcome<()> {
        let wire_type = u32::from(field.op.wire_type());
        if tag & 7 == wire_type {
            let value = records.value(wire_type)?;
            return self.element(field, value, depth, count);
        }
        if tag & 7 != 2 || wire_type == 2 {
            return Err(Fault::data("has another wire type").under_element(*count));
        }
        let mut packed = Records::new(self.bytes, records.value(2)?.range);
        while !packed.is_at_end() {
            let value = packed.value(wire_type)?;
            self.element(field, value, depth, count)?;
        }
        Ok(())
    }

    #[inline]
    fn element(&mut self, field: &Field, value: Value, depth: u32, count: &mut usize) -> Outcome<()> {
        self.step()?;
        self.out.push(b',');
        self.value(field.op, value, depth).map_err(|fault| fault.under_element(*count))?;
        *count += 1;
        Ok(())
    }

    #[inline]
    fn value(&mut self, op: Op, value: Value, depth: u32) -> Outcome<()> {
        match op {
            Op::String => self.string(value.range),
            // Decoders keep the low bits, here and below.
            Op::Uint32 => {
                self.small(value.number as u32);
                Ok(())
            }
            Op::Message(message) if !self.is_indexed => self.sorted(message, value.range, deeper(depth)?),
            Op::Bool => {
                self.out.extend_from_slice(if value.number != 0 { b"true" } else { b"false" });
                Ok(())
            }
            Op::Enum(number) => {
                match self.plan.enums[number as usize].name(value.number as i32) {
                    Some(name) => name.write(&self.plan.texts, &mut self.out),
                    None => self.integer(value.number as i32),
                }
                Ok(())
            }
            Op::Bytes => {
                self.base64(value.range);
                Ok(())
            }
            op if op.is_message() => self.message(op, &[value.range], deeper(depth)?),
            op => self.number(op, value.number),
        }
    }
}
