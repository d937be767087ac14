//! Timestamps and durations in JSON. Must not write one that is out of its range.

use super::Writer;
use crate::calendar::{DURATION_SECONDS, TIMESTAMP_SECONDS, date};
use crate::fault::{Outcome, data};
use crate::record::{Range, Records};

impl Writer<'_> {
    /// Seconds and nanoseconds: fields 1 and 2 of both messages.
    fn time(&mut self, parts: &[Range], depth: u32) -> Outcome<(i64, i32)> {
        let (mut seconds, mut nanos) = (0, 0);
        for part in parts {
            let mut records = Records::new(self.bytes, *part);
            while !records.is_at_end() {
                self.step()?;
                match records.tag()? {
                    // The tags of fields 1 and 2 as varints.
                    0x08 => seconds = records.varint()? as i64,
                    0x10 => nanos = records.varint()? as i32,
                    tag if tag >> 3 <= 2 => return data("has another wire type"),
                    tag => records.skip(tag, depth)?,
                }
            }
        }
        Ok((seconds, nanos))
    }

    pub(super) fn timestamp(&mut self, parts: &[Range], depth: u32) -> Outcome<()> {
        let (seconds, nanos) = self.time(parts, depth)?;
        let Some(nanos) = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000) else {
            return data("has nanoseconds outside of 0 to 999999999");
        };
        if !TIMESTAMP_SECONDS.contains(&seconds) {
            return data("is not in the years 0001 to 9999");
        }
        let (year, month, day) = date(seconds.div_euclid(86_400));
        let second = seconds.rem_euclid(86_400) as u32;
        let two = |number: u32| [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
        let ([a, b], [c, d]) = (two(year / 100), two(year));
        let ([e, f], [g, h]) = (two(month), two(day));
        let ([i, j], [k, l], [m, n]) = (two(second / 3_600), two(second / 60 % 60), two(second % 60));
        self.out.extend_from_slice(&[
            b'"', a, b, c, d, b'-', e, f, b'-', g, h, b'T', i, j, b':', k, l, b':', m, n,
        ]);
        self.fraction(nanos);
        self.out.extend_from_slice(b"Z\"");
        Ok(())
    }

    pub(super) fn duration(&mut self, parts: &[Range], depth: u32) -> Outcome<()> {
        let (seconds, nanos) = self.time(parts, depth)?;
        if seconds.unsigned_abs() > DURATION_SECONDS || nanos.unsigned_abs() > 999_999_999 {
            return data("is a duration out of range");
        }
        if seconds > 0 && nanos < 0 || seconds < 0 && nanos > 0 {
            return data("has seconds and nanoseconds of different signs");
        }
        self.out.push(b'"');
        if seconds < 0 || nanos < 0 {
            self.out.push(b'-');
        }
        self.integer(seconds.unsigned_abs());
        self.fraction(nanos.unsigned_abs());
        self.out.extend_from_slice(b"s\"");
        Ok(())
    }

    /// Three, six or nine digits; none for zero.
    fn fraction(&mut self, nanos: u32) {
        let (mut rest, digits) = match nanos {
            0 => return,
            nanos if nanos % 1_000_000 == 0 => (nanos / 1_000_000, 3),
            nanos if nanos % 1_000 == 0 => (nanos / 1_000, 6),
            nanos => (nanos, 9),
        };
        let mut text = *b".000000000";
        for digit in text[1..=digits].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.out.extend_from_slice(&text[..=digits]);
    }
}
