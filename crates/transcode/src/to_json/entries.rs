//! Maps: their entries on the wire, and as members of a JSON object. Must not decide what happens to a repeated key.

use super::Writer;
use crate::fault::{Fault, Outcome, data};
use crate::keys::{Key, Keys};
use crate::plan::{Field, Op};
use crate::record::{Range, Records, Value};

impl<'a> Writer<'a> {
    /// The entries of a map that follow each other, of which the first tag has been read.
    pub(super) fn map(
        &mut self,
        field: &Field,
        key: Op,
        tag: u32,
        records: &mut Records<'a>,
        depth: u32,
    ) -> Outcome<()> {
        if tag != field.tag {
            return data("has another wire type");
        }
        let start = self.out.len();
        let mut keys = Keys::default();
        loop {
            self.step()?;
            let entry = records.value(2)?.range;
            let (mut values, mut count) = (None, 0);
            let found = self.entry(field, key, entry, depth, |value| {
                values = Some(value);
                count += 1;
            })?;
            if count > 1 || !keys.insert(self.key(key, found)) {
                return Err(Fault::unsorted());
            }
            self.write_key(key, found)?;
            self.value(field.op, values.unwrap_or_default(), depth)
                .map_err(|fault| self.under_entry(key, found, fault))?;
            let mut ahead = *records;
            if ahead.is_at_end() || ahead.tag()? != field.tag {
                break;
            }
            *records = ahead;
        }
        self.close(start, b'{', b'}');
        Ok(())
    }

    /// The key of an entry, the last if there are several; and each of its values in turn. What is absent is zero.
    pub(super) fn entry(
        &self,
        field: &Field,
        key: Op,
        range: Range,
        depth: u32,
        mut each: impl FnMut(Value),
    ) -> Outcome<Value> {
        let mut records = Records::new(self.bytes, range);
        let mut found = Value::default();
        while !records.is_at_end() {
            let tag = records.tag()?;
            let expected = match tag >> 3 {
                1 => key,
                2 => field.op,
                _ => {
                    records.skip(tag, depth)?;
                    continue;
                }
            };
            if tag & 7 != u32::from(expected.wire_type()) {
                return data("has another wire type");
            }
            let value = records.value(tag & 7)?;
            if tag >> 3 == 1 {
                found = value;
            } else {
                each(value);
            }
        }
        Ok(found)
    }

    /// The key by its value.
    pub(super) fn key(&self, op: Op, found: Value) -> Key<'a> {
        match op {
            Op::String => Key::Text(self.slice(found.range).into()),
            op => Key::number(op, found.number),
        }
    }

    /// Writes a key with its comma, quotes and colon.
    pub(super) fn write_key(&mut self, op: Op, found: Value) -> Outcome<()> {
        self.out.push(b',');
        match op {
            Op::String => self.string(found.range)?,
            // These are texts as values too.
            Op::Int64 | Op::Uint64 | Op::Sint64 | Op::Fixed64 | Op::Sfixed64 => {
                self.number(op, found.number)?
            }
            op => {
                self.out.push(b'"');
                self.value(op, found, 0)?;
                self.out.push(b'"');
            }
        }
        self.out.push(b':');
        Ok(())
    }

    #[cold]
    pub(super) fn under_entry(&self, op: Op, found: Value, fault: Box<Fault>) -> Box<Fault> {
        match op {
            Op::String => fault.under(&String::from_utf8_lossy(self.slice(found.range))),
            Op::Bool => fault.under(if found.number != 0 { "true" } else { "false" }),
            Op::Sint32 | Op::Sint64 => fault.under(&super::numbers::zigzag(found.number).to_string()),
            Op::Int32 | Op::Sfixed32 => fault.under(&(found.number as i32).to_string()),
            Op::Int64 | Op::Sfixed64 => fault.under(&(found.number as i64).to_string()),
            _ => fault.under(&found.number.to_string()),
        }
    }

    pub(super) fn slice(&self, range: Range) -> &'a [u8] {
        self.bytes.get(range.from..range.to).unwrap_or_default()
    }
}
