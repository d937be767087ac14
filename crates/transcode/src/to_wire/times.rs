//! Timestamps and durations, read strictly: RFC 3339 with a capital T and Z, and no leap seconds. Must not round.

use super::Reader;
use crate::calendar::{DURATION_SECONDS, TIMESTAMP_SECONDS, days};
use crate::fault::{Outcome, data};
use crate::plan::Op;

impl Reader<'_> {
    /// Seconds and nanoseconds: fields 1 and 2 of both messages.
    pub(super) fn time(&mut self, op: Op) -> Outcome<()> {
        let text = self.text()?;
        let time = match op {
            Op::Timestamp => timestamp(&text).map_or_else(|| data("expected a time as in RFC 3339"), Ok),
            _ => duration(&text).map_or_else(|| data("expected seconds, such as \"1.5s\""), Ok),
        };
        let (seconds, nanos) = time?;
        if seconds != 0 {
            self.out.push(1 << 3);
            self.varint(seconds as u64);
        }
        if nanos != 0 {
            self.out.push(2 << 3);
            self.varint(i64::from(nanos) as u64);
        }
        Ok(())
    }
}

/// A number of digits alone, at most 18.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Nanoseconds from one to nine digits after a point.
fn nanos(text: &[u8]) -> Option<i32> {
    let missing = u32::try_from(9usize.checked_sub(text.len())?).ok()?;
    i32::try_from(digits(text)? * 10u64.pow(missing)).ok()
}

fn timestamp(text: &[u8]) -> Option<(i64, i32)> {
    let (date, rest) = text.split_at_checked(19)?;
    let &[y1, y2, y3, y4, b'-', o1, o2, b'-', d1, d2, b'T', h1, h2, b':', m1, m2, b':', s1, s2] = date else {
        return None;
    };
    let number = |text: &[u8]| digits(text).and_then(|number| u32::try_from(number).ok());
    let day = days(number(&[y1, y2, y3, y4])?, number(&[o1, o2])?, number(&[d1, d2])?)?;
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix(b".") {
        Some(rest) => {
            let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
            (nanos(&rest[..end])?, &rest[end..])
        }
        None => (0, rest),
    };
    let offset = match zone {
        b"Z" => 0,
        &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            i64::from(hours * 3_600 + minutes * 60) * if sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = day * 86_400 + i64::from(hour * 3_600 + minute * 60 + second) - offset;
    TIMESTAMP_SECONDS.contains(&seconds).then_some((seconds, fraction))
}

fn duration(text: &[u8]) -> Option<(i64, i32)> {
    let text = text.strip_suffix(b"s")?;
    let (sign, text) = text.strip_prefix(b"-").map_or((1, text), |text| (-1, text));
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], nanos(&text[point + 1..])?),
        None => (text, 0),
    };
    let seconds = digits(whole).filter(|seconds| *seconds <= DURATION_SECONDS)?;
    Some((i64::try_from(seconds).ok()? * i64::from(sign), fraction * sign))
}
