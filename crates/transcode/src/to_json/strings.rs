//! Strings, bytes and field masks in JSON. Must not write a string that is not UTF-8.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Writer;
use crate::fault::{Outcome, data};
use crate::record::{Range, Records};
use crate::swar::{beyond_ascii, stops};

/// How many bytes are looked at, and copied, at once.
const WIDTH: usize = 16;
/// Which bytes of both halves belong to a string of each length.
const MASKS: [[u64; 2]; WIDTH + 1] = {
    let mut masks = [[u64::MAX; 2]; WIDTH + 1];
    let mut length = 0;
    while length < WIDTH {
        let mask: u128 = (1 << (8 * length)) - 1;
        masks[length] = [mask as u64, (mask >> 64) as u64];
        length += 1;
    }
    masks
};
const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl Writer<'_> {
    #[inline]
    pub(super) fn string(&mut self, range: Range) -> Outcome<()> {
        let length = range.to - range.from;
        let head = self.bytes.get(range.from..).and_then(|rest| rest.first_chunk::<WIDTH>());
        if let (Some(head), Some(masks)) = (head, MASKS.get(length)) {
            // What lies beyond the end is masked out of the result: a borrow only runs upwards.
            let both = u128::from_le_bytes(*head);
            let odd = |word: u64, mask: u64| (stops(word) | beyond_ascii(word)) & mask;
            if odd(both as u64, masks[0]) | odd((both >> 64) as u64, masks[1]) == 0 {
                self.out.push(b'"');
                let at = self.out.len();
                self.out.extend_from_slice(head);
                self.out.truncate(at + length);
                self.out.push(b'"');
                return Ok(());
            }
        }
        self.long_string(self.slice(range))
    }

    #[inline(never)]
    pub(super) fn long_string(&mut self, text: &[u8]) -> Outcome<()> {
        let (chunks, tail) = text.as_chunks::<8>();
        let mut last = [b'a'; 8];
        last[..tail.len()].copy_from_slice(tail);
        let (mut high, mut stopped) = (0, 0);
        for chunk in chunks.iter().chain([&last]) {
            let word = u64::from_le_bytes(*chunk);
            high |= beyond_ascii(word);
            stopped |= stops(word);
        }
        if high != 0 && std::str::from_utf8(text).is_err() {
            return data("is not UTF-8");
        }
        self.out.push(b'"');
        if stopped == 0 {
            self.out.extend_from_slice(text);
        } else {
            self.escape(text);
        }
        self.out.push(b'"');
        Ok(())
    }

    fn escape(&mut self, text: &[u8]) {
        let mut from = 0;
        for (at, byte) in text.iter().enumerate() {
            let short = match byte {
                b'"' | b'\\' => *byte,
                8 => b'b',
                9 => b't',
                10 => b'n',
                12 => b'f',
                13 => b'r',
                0..0x20 => 0,
                _ => continue,
            };
            self.out.extend_from_slice(&text[from..at]);
            from = at + 1;
            if short == 0 {
                let digit = |four: u8| DIGITS[usize::from(four)];
                self.out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            } else {
                self.out.extend_from_slice(&[b'\\', short]);
            }
        }
        self.out.extend_from_slice(&text[from..]);
    }

    pub(super) fn base64(&mut self, range: Range) {
        let bytes = self.slice(range);
        self.out.push(b'"');
        let at = self.out.len();
        self.out.resize(at + bytes.len().div_ceil(3) * 4, 0);
        // The space is enough: four characters for each three bytes.
        let written = STANDARD.encode_slice(bytes, &mut self.out[at..]).unwrap_or_default();
        self.out.truncate(at + written);
        self.out.push(b'"');
    }

    /// The paths of a field mask, in camelCase and separated by commas.
    pub(super) fn field_mask(&mut self, parts: &[Range], depth: u32) -> Outcome<()> {
        let mut mask = String::new();
        for part in parts {
            let mut records = Records::new(self.bytes, *part);
            while !records.is_at_end() {
                self.step()?;
                let tag = records.tag()?;
                match (tag >> 3, tag & 7) {
                    (1, 2) => {
                        let path = std::str::from_utf8(self.slice(records.value(2)?.range));
                        let path = path.or_else(|_| data("is not UTF-8"))?;
                        if !mask.is_empty() {
                            mask.push(',');
                        }
                        camel(&mut mask, path)?;
                    }
                    (1, _) => return data("has another wire type"),
                    _ => records.skip(tag, depth)?,
                }
            }
        }
        self.long_string(mask.as_bytes())
    }
}

/// Appends a path in camelCase, if it can be read as the same again.
fn camel(mask: &mut String, path: &str) -> Outcome<()> {
    if path.is_empty() {
        return data("has a path that is empty");
    }
    let mut is_first_of_word = false;
    for c in path.chars() {
        match c {
            'a'..='z' if is_first_of_word => mask.push(c.to_ascii_uppercase()),
            'A'..='Z' => return data("has a path with a capital letter"),
            _ if is_first_of_word => return data("has a path with an underscore before what is no letter"),
            '_' => {}
            ',' => return data("has a path with a comma"),
            c => mask.push(c),
        }
        is_first_of_word = c == '_';
    }
    if is_first_of_word { data("has a path with an underscore at its end") } else { Ok(()) }
}
