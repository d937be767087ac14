//! Checks that bytes are the encoding of a plan's message: wire types, lengths and texts, in one pass. Must not write
//! anything.

use crate::fault::{DEPTH, Fault, Outcome, data, deeper};
use crate::plan::{Card, Field, Op, Plan};
use crate::record::{Range, Records, Value};

/// Checks a message, with all that is in it. Fields that are unknown have to be well-formed records.
///
/// # Errors
///
/// If the bytes are not an encoding of the plan's message. The path of an element has no index.
pub(crate) fn check(plan: &Plan, protobuf: &[u8]) -> Outcome<()> {
    Checker { plan, bytes: protobuf }.message(plan.root, Range { from: 0, to: protobuf.len() }, DEPTH)
}

struct Checker<'a> {
    plan: &'a Plan,
    bytes: &'a [u8],
}

impl<'a> Checker<'a> {
    fn message(&self, op: Op, range: Range, depth: u32) -> Outcome<()> {
        let table = match op {
            Op::Message(message) | Op::Alone(message) | Op::Value(message) => self.plan.message(message),
            Op::Timestamp | Op::Duration => return self.known(range, &[Op::Int64, Op::Int32], depth),
            _ => return self.known(range, &[Op::String], depth),
        };
        let mut records = Records::new(self.bytes, range);
        while !records.is_at_end() {
            let tag = records.tag()?;
            match table.find(tag >> 3) {
                Some(index) => self
                    .field(&table.fields[index], tag, &mut records, depth)
                    .map_err(|fault| fault.under(table.name(index)))?,
                None => records.skip(tag, depth)?,
            }
        }
        Ok(())
    }

    #[inline]
    fn field(&self, field: &Field, tag: u32, records: &mut Records<'a>, depth: u32) -> Outcome<()> {
        let wire_type = u32::from(field.op.wire_type());
        match field.card {
            Card::Map { key } if tag & 7 == 2 => {
                self.known(records.value(2)?.range, &[key, field.op], deeper(depth)?)
            }
            Card::Map { .. } => mistyped(),
            _ if tag & 7 == wire_type => self.value(field.op, records.value(wire_type)?, depth),
            Card::Repeated { .. } if tag & 7 == 2 => {
                let mut packed = Records::new(self.bytes, records.value(2)?.range);
                while !packed.is_at_end() {
                    packed.value(wire_type)?;
                }
                Ok(())
            }
            _ => mistyped(),
        }
    }

    #[inline]
    fn value(&self, op: Op, value: Value, depth: u32) -> Outcome<()> {
        match op {
            Op::String => {
                let bytes = self.bytes.get(value.range.from..value.range.to).unwrap_or_default();
                if std::str::from_utf8(bytes).is_ok() { Ok(()) } else { data("is not UTF-8") }
            }
            op if op.is_message() => self.message(op, value.range, deeper(depth)?),
            _ => Ok(()),
        }
    }

    /// A message without a table: fields of these types, numbered from 1.
    fn known(&self, range: Range, fields: &[Op], depth: u32) -> Outcome<()> {
        let mut records = Records::new(self.bytes, range);
        while !records.is_at_end() {
            let tag = records.tag()?;
            let index = (tag >> 3) as usize;
            match index.checked_sub(1).and_then(|index| fields.get(index)) {
                Some(op) if tag & 7 == u32::from(op.wire_type()) => {
                    self.value(*op, records.value(tag & 7)?, depth)?;
                }
                Some(_) => return mistyped(),
                None => records.skip(tag, depth)?,
            }
        }
        Ok(())
    }
}

#[cold]
fn mistyped() -> Outcome<()> {
    Err(Fault::data("has another wire type"))
}
