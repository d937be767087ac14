//! Values of unknown fields, which are checked and passed over. Must not recurse: unknown values may be nested at will.

use super::Reader;
use super::numbers::{Grammar, length_of};
use crate::fault::Outcome;

impl Reader<'_> {
    /// Skips a value of any kind.
    #[inline(never)]
    pub(super) fn skip(&mut self) -> Outcome<()> {
        // The closing brackets of what is open.
        let mut open = Vec::new();
        loop {
            match self.peek() {
                b'"' => self.skip_string()?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                b'{' => {
                    if !self.is_empty(b'}') {
                        open.push(b'}');
                        self.skip_key()?;
                        continue;
                    }
                }
                b'[' => {
                    if !self.is_empty(b']') {
                        open.push(b']');
                        continue;
                    }
                }
                _ => match self.bytes.get(self.at..).and_then(|rest| length_of(rest, Grammar::Json)) {
                    Some(length) => self.at += length,
                    None => return self.syntax("a value is missing"),
                },
            }
            // After a value: the end of all that it ends, and the beginning of the next.
            loop {
                let Some(close) = open.last().copied() else { return Ok(()) };
                if !self.is_last(close)? {
                    if close == b'}' {
                        self.skip_key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    fn skip_key(&mut self) -> Outcome<()> {
        if self.peek() != b'"' {
            return self.syntax("expected a key");
        }
        self.skip_string()?;
        self.colon()
    }

    /// A string that nobody looks at: halves of surrogate pairs are no error.
    fn skip_string(&mut self) -> Outcome<()> {
        self.at += 1;
        loop {
            self.at = crate::swar::stop(self.bytes, self.at);
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    let length = match self.bytes.get(self.at + 1) {
                        Some(b'u') => {
                            let digits = self.bytes.get(self.at + 2..self.at + 6).unwrap_or_default();
                            if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                                return self.syntax("has an invalid escape");
                            }
                            6
                        }
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                        _ => return self.syntax("has an invalid escape"),
                    };
                    self.at += length;
                }
                _ => return self.syntax("has a string with a control character or without an end"),
            }
        }
    }
}
