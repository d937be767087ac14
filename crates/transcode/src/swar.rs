//! Tests of eight bytes at once (SIMD within a register). Must not know what a string is in JSON or protobuf.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = ONES * 0x80;

/// The high bits of the bytes that stop a JSON string: quotes, backslashes and control characters.
///
/// Only the lowest one is exact: a borrow may set those above it. Whether any is set is exact.
#[inline]
pub(crate) fn stops(word: u64) -> u64 {
    let (quotes, backslashes) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5c));
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    let quotes = quotes.wrapping_sub(ONES) & !quotes;
    let backslashes = backslashes.wrapping_sub(ONES) & !backslashes;
    (controls | quotes | backslashes) & HIGH
}

/// The high bits of the bytes that are not ASCII.
#[inline]
pub(crate) fn beyond_ascii(word: u64) -> u64 {
    word & HIGH
}

/// The index of the first byte that has its bit set.
#[inline]
pub(crate) fn first(bits: u64) -> usize {
    (bits.trailing_zeros() / 8) as usize
}

/// The position of the first byte from `at` on that stops a JSON string; the length if there is none.
#[inline]
pub(crate) fn stop(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let found = stops(u64::from_le_bytes(*chunk));
        if found != 0 {
            return at + first(found);
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if *byte < 0x20 || matches!(byte, b'"' | b'\\') {
            return at;
        }
        at += 1;
    }
    at
}
