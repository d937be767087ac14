//! Strings and bytes. Must not copy a string that has no escapes but to its place.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{Reader, Written};
use crate::fault::{Outcome, data};
use crate::swar::stop;

/// How many bytes are copied at once.
const WIDTH: usize = 16;
/// With and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl<'a> Reader<'a> {
    /// A string, with its length.
    #[inline]
    pub(super) fn string(&mut self) -> Outcome<Written> {
        if self.peek() != b'"' {
            return self.mismatch("expected a string");
        }
        let from = self.at + 1;
        let to = stop(self.bytes, from);
        if self.bytes.get(to) != Some(&b'"') {
            return self.escaped();
        }
        self.at = to + 1;
        let length = to - from;
        let head = self.bytes.get(from..).and_then(|rest| rest.first_chunk::<WIDTH>());
        match head {
            Some(head) if length <= WIDTH => {
                self.out.push(length as u8);
                let at = self.out.len();
                self.out.extend_from_slice(head);
                self.out.truncate(at + length);
            }
            _ => {
                self.varint(length as u64);
                self.out.extend_from_slice(&self.bytes[from..to]);
            }
        }
        Ok(Written::unless(length == 0))
    }

    /// A string that has an escape, or that does not end.
    #[inline(never)]
    fn escaped(&mut self) -> Outcome<Written> {
        let length = self.begin();
        let mut out = std::mem::take(&mut self.out);
        let unescaped = self.unescape(&mut out);
        self.out = out;
        unescaped?;
        let is_empty = self.out.len() == length + 1;
        self.end(length);
        Ok(Written::unless(is_empty))
    }

    /// A string that is looked at.
    pub(super) fn text(&mut self) -> Outcome<Cow<'a, [u8]>> {
        if self.peek() != b'"' {
            return self.mismatch("expected a string");
        }
        let from = self.at + 1;
        let to = stop(self.bytes, from);
        if self.bytes.get(to) == Some(&b'"') {
            self.at = to + 1;
            return Ok(Cow::Borrowed(&self.bytes[from..to]));
        }
        let mut text = Vec::new();
        self.unescape(&mut text)?;
        Ok(Cow::Owned(text))
    }

    fn unescape(&mut self, out: &mut Vec<u8>) -> Outcome<()> {
        self.at += 1;
        loop {
            let to = stop(self.bytes, self.at);
            out.extend_from_slice(&self.bytes[self.at..to]);
            self.at = to;
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    let c = self.escape()?;
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => return self.syntax("has a string with a control character or without an end"),
            }
        }
    }

    fn escape(&mut self) -> Outcome<char> {
        let c = match self.bytes.get(self.at + 1) {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(*c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return self.syntax("has an invalid escape"),
        };
        self.at += 2;
        Ok(c)
    }

    /// `\u` and four digits; or two of them, for one character.
    fn unicode(&mut self) -> Outcome<char> {
        let high = self.digits(self.at)?;
        self.at += 6;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high).map_or_else(|| self.syntax("has half of a surrogate pair"), Ok);
        }
        let low = if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(b"\\u")) {
            self.digits(self.at)?
        } else {
            0
        };
        if !(0xdc00..0xe000).contains(&low) {
            return self.syntax("has half of a surrogate pair");
        }
        self.at += 6;
        let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        char::from_u32(code).map_or_else(|| self.syntax("has half of a surrogate pair"), Ok)
    }

    /// The four digits of the escape at this place.
    fn digits(&self, at: usize) -> Outcome<u32> {
        let digits = self.bytes.get(at + 2..at + 6).unwrap_or_default();
        let digits = digits.iter().map(|digit| char::from(*digit).to_digit(16));
        let code = digits.clone().try_fold(0, |code, digit| Some(code << 4 | digit?));
        match code {
            Some(code) if digits.len() == 4 => Ok(code),
            _ => self.syntax("has an invalid escape"),
        }
    }

    /// Bytes in either alphabet, with their length.
    pub(super) fn base64(&mut self) -> Outcome<Written> {
        let mut text = self.text()?;
        if text.iter().any(|byte| matches!(byte, b'-' | b'_')) {
            for byte in text.to_mut() {
                match byte {
                    b'-' => *byte = b'+',
                    b'_' => *byte = b'/',
                    _ => {}
                }
            }
        }
        let Ok(bytes) = BASE64.decode(&text) else { return data("expected bytes in base64") };
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(&bytes);
        Ok(Written::unless(bytes.is_empty()))
    }

    /// The paths of a field mask: field 1 of its message, in snake_case.
    pub(super) fn field_mask(&mut self) -> Outcome<()> {
        let mask = self.text()?;
        for path in mask.split(|byte| *byte == b',').filter(|path| !path.is_empty()) {
            self.step()?;
            self.out.push(1 << 3 | 2);
            let length = self.begin();
            for byte in path {
                match byte {
                    b'A'..=b'Z' => self.out.extend_from_slice(&[b'_', byte.to_ascii_lowercase()]),
                    b'_' => return data("has a path with an underscore"),
                    byte => self.out.push(*byte),
                }
            }
            self.end(length);
        }
        Ok(())
    }
}
