//! Numbers in JSON. Must not know where they stand.

use super::Writer;
use crate::fault::{Outcome, data};
use crate::plan::Op;

/// What an encoded sint64 stands for; a sint32 within its low bits as well.
#[inline]
pub(super) fn zigzag(number: u64) -> i64 {
    ((number >> 1) as i64) ^ -((number & 1) as i64)
}

impl Writer<'_> {
    /// A number that is most often one digit.
    #[inline]
    pub(super) fn small(&mut self, number: u32) {
        if number < 10 {
            self.out.push(b'0' + number as u8);
        } else {
            self.integer(number);
        }
    }

    #[inline]
    pub(super) fn integer(&mut self, number: impl itoa::Integer) {
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn quoted(&mut self, number: impl itoa::Integer) {
        self.out.push(b'"');
        self.integer(number);
        self.out.push(b'"');
    }

    /// A value that is neither a text nor a message. Decoders keep the low bits of a number that is too large.
    #[inline(never)]
    pub(super) fn number(&mut self, op: Op, number: u64) -> Outcome<()> {
        match op {
            Op::Int32 | Op::Sfixed32 => self.integer(number as i32),
            Op::Fixed32 => self.integer(number as u32),
            Op::Sint32 => self.integer(zigzag(number & u64::from(u32::MAX)) as i32),
            Op::Int64 | Op::Sfixed64 => self.quoted(number as i64),
            Op::Sint64 => self.quoted(zigzag(number)),
            Op::Uint64 | Op::Fixed64 => self.quoted(number),
            Op::Null => self.out.extend_from_slice(b"null"),
            Op::Double => return self.double(f64::from_bits(number)),
            Op::Float => return self.float(f32::from_bits(number as u32)),
            Op::Finite => {
                let number = f64::from_bits(number);
                if !number.is_finite() {
                    return data("is not finite, and has no form in google.protobuf.Value");
                }
                return self.double(number);
            }
            _ => return data("is not a number"),
        }
        Ok(())
    }

    /// Both lengths are written with as few digits as identify them.
    fn double(&mut self, number: f64) -> Outcome<()> {
        if !number.is_finite() {
            return self.not_finite(number);
        }
        serde_json::to_writer(&mut self.out, &number).or_else(|_| data("is not a number"))
    }

    fn float(&mut self, number: f32) -> Outcome<()> {
        if !number.is_finite() {
            return self.not_finite(number.into());
        }
        serde_json::to_writer(&mut self.out, &number).or_else(|_| data("is not a number"))
    }

    fn not_finite(&mut self, number: f64) -> Outcome<()> {
        self.out.extend_from_slice(match number {
            f64::INFINITY => b"\"Infinity\"",
            f64::NEG_INFINITY => b"\"-Infinity\"",
            _ => b"\"NaN\"".as_slice(),
        });
        Ok(())
    }
}
