//! Numbers and lengths on the wire. Must not know what they are of.

use super::Reader;

impl Reader<'_> {
    #[inline]
    pub(super) fn varint(&mut self, mut number: u64) {
        while number >= 128 {
            self.out.push(number as u8 | 128);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    /// Leaves space for a length of one byte, and returns its place.
    #[inline]
    pub(super) fn begin(&mut self) -> usize {
        self.out.push(0);
        self.out.len() - 1
    }

    /// Writes the length of what came after its place. What is longer than 127 bytes is moved.
    #[inline]
    pub(super) fn end(&mut self, at: usize) {
        let length = self.out.len() - at - 1;
        if length < 128 {
            self.out[at] = length as u8;
        } else {
            self.long_end(at, length);
        }
    }

    #[inline(never)]
    fn long_end(&mut self, at: usize, length: usize) {
        let end = self.out.len();
        self.varint(length as u64);
        // The length is at the end now: it comes to its place, and the content behind it.
        let bytes = self.out.len() - end;
        self.out.copy_within(at + 1..end, at + bytes);
        self.out[at..at + bytes].fill(0);
        let mut rest = length;
        for (index, byte) in self.out[at..at + bytes].iter_mut().enumerate() {
            let more = if index + 1 < bytes { 128 } else { 0 };
            *byte = (rest & 127) as u8 | more;
            rest >>= 7;
        }
        self.out.truncate(end + bytes - 1);
    }
}
