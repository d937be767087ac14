//! Numbers, from JSON numbers and from texts. Must not lose a digit: integers are never read as doubles.

use super::{Reader, Written};
use crate::fault::{Outcome, data};
use crate::plan::Op;

/// How a number may be spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    Json,
    /// In a text: leading zeros and a plus sign as well.
    Text,
}

impl<'a> Reader<'a> {
    /// A number but uint32, which is not worth a call.
    #[inline(never)]
    pub(super) fn number(&mut self, op: Op) -> Outcome<Written> {
        let signed = |reader: &mut Self, bits: u32| match bits {
            32 => reader.signed(i32::MIN.into(), i32::MAX.into()),
            _ => reader.signed(i64::MIN, i64::MAX),
        };
        let number = match op {
            Op::Int32 => signed(self, 32)? as u64,
            Op::Int64 => signed(self, 64)? as u64,
            Op::Uint64 => self.unsigned(u64::MAX)?,
            Op::Sint32 | Op::Sint64 => {
                let number = signed(self, if op == Op::Sint32 { 32 } else { 64 })?;
                ((number << 1) ^ (number >> 63)) as u64
            }
            Op::Fixed32 => return self.fixed32(|reader| Ok(reader.unsigned(u32::MAX.into())? as u32)),
            Op::Sfixed32 => return self.fixed32(|reader| Ok(signed(reader, 32)? as u32)),
            Op::Float => return self.fixed32(|reader| reader.float().map(f32::to_bits)),
            Op::Fixed64 => return self.fixed64(|reader| reader.unsigned(u64::MAX)),
            Op::Sfixed64 => return self.fixed64(|reader| Ok(signed(reader, 64)? as u64)),
            Op::Double | Op::Finite => return self.fixed64(|reader| reader.double().map(f64::to_bits)),
            _ => return data("is not a number"),
        };
        self.varint(number);
        Ok(Written::unless(number == 0))
    }

    fn fixed32(&mut self, read: impl FnOnce(&mut Self) -> Outcome<u32>) -> Outcome<Written> {
        let bits = read(self)?;
        self.out.extend_from_slice(&bits.to_le_bytes());
        // Negative zero has bits, and is kept.
        Ok(Written::unless(bits == 0))
    }

    fn fixed64(&mut self, read: impl FnOnce(&mut Self) -> Outcome<u64>) -> Outcome<Written> {
        let bits = read(self)?;
        self.out.extend_from_slice(&bits.to_le_bytes());
        Ok(Written::unless(bits == 0))
    }

    #[inline]
    pub(super) fn unsigned(&mut self, max: u64) -> Outcome<u64> {
        // Most are few digits, followed by what cannot belong to a number.
        let (mut at, mut number) = (self.at, 0u64);
        let first = self.peek();
        while let Some(digit) = self.bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|d| *d < 10) {
            number = number.wrapping_mul(10).wrapping_add(digit.into());
            at += 1;
        }
        let digits = at - self.at;
        let is_plain = (1..=18).contains(&digits) && (digits == 1 || first != b'0');
        if is_plain && number <= max && !matches!(self.bytes.get(at), Some(b'.' | b'e' | b'E')) {
            self.at = at;
            return Ok(number);
        }
        match self.whole()? {
            (false, number) | (true, number @ 0) if number <= max => Ok(number),
            _ => data("is out of the range of its field"),
        }
    }

    pub(super) fn signed(&mut self, min: i64, max: i64) -> Outcome<i64> {
        let (is_negative, number) = self.whole()?;
        let number = if is_negative { 0i64.checked_sub_unsigned(number) } else { i64::try_from(number).ok() };
        match number {
            Some(number) if (min..=max).contains(&number) => Ok(number),
            _ => data("is out of the range of its field"),
        }
    }

    /// Whether it is negative, and how large.
    #[inline(never)]
    fn whole(&mut self) -> Outcome<(bool, u64)> {
        let whole = if self.peek() == b'"' {
            let text = self.text()?;
            is_number(&text).then(|| whole(&text)).flatten()
        } else {
            whole(self.json_number()?)
        };
        whole.map_or_else(|| data("expected a whole number of at most 64 bits"), Ok)
    }

    fn json_number(&mut self) -> Outcome<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if !matches!(rest.first(), Some(b'-' | b'0'..=b'9')) {
            return self.mismatch("expected a number");
        }
        match length_of(rest, Grammar::Json) {
            Some(length) => {
                self.at += length;
                Ok(&rest[..length])
            }
            None => self.syntax("has an invalid number"),
        }
    }

    fn double(&mut self) -> Outcome<f64> {
        self.real(f64::NAN, f64::INFINITY, f64::is_finite)
    }

    fn float(&mut self) -> Outcome<f32> {
        self.real(f32::NAN, f32::INFINITY, f32::is_finite)
    }

    fn real<F>(&mut self, nan: F, infinity: F, is_finite: fn(F) -> bool) -> Outcome<F>
    where
        F: std::str::FromStr + std::ops::Neg<Output = F> + Copy,
    {
        let text;
        let number = if self.peek() == b'"' {
            text = self.text()?;
            match &*text {
                b"NaN" => return Ok(nan),
                b"Infinity" => return Ok(infinity),
                b"-Infinity" => return Ok(-infinity),
                text if is_number(text) => text,
                _ => return data("expected a number"),
            }
        } else {
            self.json_number()?
        };
        let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
        // What is too large is read as infinite.
        match number.filter(|number| is_finite(*number)) {
            Some(number) => Ok(number),
            None => data("is out of the range of its field"),
        }
    }
}

fn is_number(text: &[u8]) -> bool {
    length_of(text, Grammar::Text) == Some(text.len())
}

/// The length of the number that the bytes begin with; None if they begin with none.
pub(super) fn length_of(bytes: &[u8], grammar: Grammar) -> Option<usize> {
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    // The end of the digits from here; None if there are none.
    let digits = |from: usize| {
        let digits = bytes.get(from..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (digits > 0).then_some(from + digits)
    };
    let start = usize::from(at(0) == b'-' || at(0) == b'+' && grammar == Grammar::Text);
    let mut end = digits(start)?;
    if at(start) == b'0' && end > start + 1 && grammar == Grammar::Json {
        return None;
    }
    if at(end) == b'.' {
        end = digits(end + 1)?;
    }
    if matches!(at(end), b'e' | b'E') {
        end = digits(end + 1 + usize::from(matches!(at(end + 1), b'+' | b'-')))?;
    }
    Some(end)
}

/// The value of a number that is well-formed: whether it is negative, and how large. None if it is not whole, or has more
/// than 64 bits.
fn whole(text: &[u8]) -> Option<(bool, u64)> {
    let split = text.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = split.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
    let point = mantissa.iter().position(|byte| *byte == b'.');
    let fraction = point.map_or(0, |at| mantissa.len() - at - 1);
    let mut scale = exponent.map_or(Some(0), exponent_of)?.checked_sub(i64::try_from(fraction).ok()?)?;
    let (mut number, mut zeros) = (0u64, 0);
    for digit in mantissa.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| u64::from(byte - b'0')) {
        // Zeros at the end are a matter of the scale.
        if digit == 0 {
            zeros += i64::from(number != 0);
            continue;
        }
        for _ in 0..=zeros {
            number = number.checked_mul(10)?;
        }
        number = number.checked_add(digit)?;
        zeros = 0;
    }
    scale = scale.checked_add(zeros)?;
    if number == 0 {
        scale = 0;
    }
    // Nineteen zeros are the most that fit; more are refused after the twentieth.
    for _ in 0..u64::try_from(scale).ok()? {
        number = number.checked_mul(10)?;
    }
    Some((text.first() == Some(&b'-'), number))
}

/// None if it has more than 64 bits: then only a zero would be of a whole number, and nobody writes that.
fn exponent_of(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
