//! Records of the protobuf encoding: reads tags, numbers and lengths. Must not know what a field means.

use crate::fault::{Outcome, data, deeper};

/// A value on the wire: a number, or a range of bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Value {
    pub(crate) number: u64,
    pub(crate) range: Range,
}

/// From one byte to before another.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Range {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// Bytes that are read from a position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Records<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
    /// Where they end; no more than the bytes' length.
    pub(crate) end: usize,
}

impl<'a> Records<'a> {
    pub(crate) fn new(bytes: &'a [u8], range: Range) -> Records<'a> {
        Records { bytes, at: range.from, end: range.to }
    }

    #[inline]
    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..self.end).unwrap_or_default()
    }

    /// # Errors
    ///
    /// If the field number is 0, or the tag has more than 32 bits.
    #[inline]
    pub(crate) fn tag(&mut self) -> Outcome<u32> {
        match u32::try_from(self.varint()?) {
            Ok(tag) if tag >= 8 => Ok(tag),
            _ => data("has an invalid tag"),
        }
    }

    /// # Errors
    ///
    /// If the bytes end within it, or it has more than 64 bits.
    #[inline]
    pub(crate) fn varint(&mut self) -> Outcome<u64> {
        if self.at < self.end {
            let byte = self.bytes[self.at];
            if byte < 128 {
                self.at += 1;
                return Ok(byte.into());
            }
        }
        self.long_varint()
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Outcome<u64> {
        let mut number = 0;
        for (index, byte) in self.rest().iter().enumerate().take(10) {
            if index == 9 && *byte > 1 {
                break;
            }
            number |= u64::from(byte & 127) << (7 * index);
            if *byte < 128 {
                self.at += index + 1;
                return Ok(number);
            }
        }
        data(if self.rest().len() < 10 {
            "ends within a number"
        } else {
            "has a number of more than 64 bits"
        })
    }

    /// The value of a record with this wire type; no groups.
    ///
    /// # Errors
    ///
    /// If the bytes end within it, or it is a group.
    #[inline]
    pub(crate) fn value(&mut self, wire_type: u32) -> Outcome<Value> {
        match wire_type {
            0 => Ok(Value { number: self.varint()?, range: Range::default() }),
            2 => {
                let length = self.varint()?;
                match usize::try_from(length) {
                    Ok(length) if length <= self.end - self.at => {
                        let range = Range { from: self.at, to: self.at + length };
                        self.at = range.to;
                        Ok(Value { number: 0, range })
                    }
                    _ => data("ends within a field"),
                }
            }
            _ => self.fixed(wire_type),
        }
    }

    fn fixed(&mut self, wire_type: u32) -> Outcome<Value> {
        let rest = self.rest();
        let number = match wire_type {
            1 => rest.first_chunk().map(|bytes| (u64::from_le_bytes(*bytes), 8)),
            5 => rest.first_chunk().map(|bytes| (u64::from(u32::from_le_bytes(*bytes)), 4)),
            _ => return data("has an invalid wire type"),
        };
        let Some((number, length)) = number else { return data("ends within a field") };
        self.at += length;
        Ok(Value { number, range: Range::default() })
    }

    /// Skips what follows a tag of an unknown field.
    ///
    /// # Errors
    ///
    /// If it is not well-formed, or groups are nested more deeply than this.
    pub(crate) fn skip(&mut self, tag: u32, depth: u32) -> Outcome<()> {
        if tag & 7 != 3 {
            return self.value(tag & 7).map(|_| ());
        }
        let depth = deeper(depth)?;
        loop {
            let inner = self.tag()?;
            if inner & 7 != 4 {
                self.skip(inner, depth)?;
            } else if inner >> 3 == tag >> 3 {
                return Ok(());
            } else {
                return data("has a group that ends as another");
            }
        }
    }
}
