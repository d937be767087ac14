//! Maps: JSON objects as entries on the wire. Must not take two keys that are the same, however they are written.

use super::{Reader, UnknownNames, Written};
use crate::fault::{Outcome, data};
use crate::keys::{Key, Keys};
use crate::plan::{Field, Op};

impl Reader<'_> {
    #[inline(never)]
    pub(super) fn map(&mut self, field: &Field, key: Op, depth: u32) -> Outcome<()> {
        if self.peek() != b'{' {
            return self.mismatch("expected an object");
        }
        if self.is_empty(b'}') {
            return Ok(());
        }
        let mut keys = Keys::default();
        loop {
            self.step()?;
            let at = self.at;
            self.entry(field, key, &mut keys, depth).map_err(|fault| self.under_key(at, fault))?;
            if self.is_last(b'}')? {
                return Ok(());
            }
        }
    }

    fn entry(&mut self, field: &Field, key: Op, keys: &mut Keys<'static>, depth: u32) -> Outcome<()> {
        let start = self.out.len();
        field.head.write(&self.plan.texts, &mut self.out);
        let length = self.begin();
        // The key is field 1 of an entry, the value field 2.
        self.out.push(1 << 3 | key.wire_type());
        let from = self.out.len();
        if self.peek() != b'"' {
            return self.syntax("expected a key");
        }
        let read = match key {
            Op::Bool => {
                let bit = match &*self.key()? {
                    b"true" => true,
                    b"false" => false,
                    _ => return data("has a key that is neither true nor false"),
                };
                self.bit(bit);
                Key::Number(bit.into())
            }
            Op::String => {
                self.string()?;
                Key::Text(self.out[from..].to_vec().into())
            }
            // Numbers have one encoding each.
            key => {
                self.value(key, depth)?;
                Key::Text(self.out[from..].to_vec().into())
            }
        };
        if !keys.insert(read) {
            return data("occurs twice");
        }
        self.colon()?;
        self.out.push(2 << 3 | field.op.wire_type());
        if self.value(field.op, depth)? == Written::Nothing {
            self.out.truncate(start);
        } else {
            self.end(length);
        }
        Ok(())
    }

    /// An enum value by name or number.
    pub(super) fn enumeration(&mut self, op: Op) -> Outcome<Written> {
        let number = match (self.peek(), op) {
            (b'n', Op::Null) => {
                self.literal(b"null")?;
                0
            }
            (b'"', op) => {
                let name = self.text()?;
                let number = match op {
                    Op::Enum(number) => self.plan.enums[number as usize].number(&name),
                    _ => (*name == *b"NULL_VALUE").then_some(0),
                };
                match (number, self.names) {
                    (Some(number), _) => number,
                    (None, UnknownNames::Refuse) => return data("is not a value of its enum"),
                    (None, UnknownNames::LeaveOut) => {
                        self.unknown_names = self.unknown_names.saturating_add(1);
                        return Ok(Written::Nothing);
                    }
                }
            }
            _ => self.signed(i32::MIN.into(), i32::MAX.into())? as i32,
        };
        self.varint(i64::from(number) as u64);
        Ok(Written::unless(number == 0))
    }
}
