//! The expiry of a certificate, the only field that the TLS library does not expose (RFC 5280, 4.1.2.5). The
//! certificate has been verified before. Pure.

/// DER tags.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When a certificate expires, in seconds of Unix time: it is valid up to and including the second before. None if that
/// cannot be parsed.
pub(crate) fn of(certificate: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, signed, _) = element(certificate)?;
    let (tag, _, after_first) = element(signed)?;
    // Version, serial number, signature, issuer.
    let mut rest = if tag == VERSION { after_first } else { signed };
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (tag, validity, _) = element(rest)?;
    let (_, _, after) = element(validity)?;
    let (time, digits, _) = element(after)?;
    (tag == SEQUENCE).then_some(())?;
    // The certificate is still valid in the last second.
    seconds(time, digits)?.checked_add(1)
}

/// The first DER element: its tag, its content, and the bytes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// Parses `YYMMDDHHMMSSZ`, or the same with a four-digit year.
fn seconds(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    let pairs: Vec<u64> = digits.chunks(2).map(pair).collect::<Option<_>>()?;
    let (year, rest) = match (tag, &*pairs) {
        (UTC_TIME, [year, rest @ ..]) => (if *year < 50 { 2_000 + year } else { 1_900 + year }, rest),
        (GENERALIZED_TIME, [century, year, rest @ ..]) => (100 * century + year, rest),
        _ => return None,
    };
    let [month @ 1..=12, day @ 1..=31, hour @ 0..=23, minute @ 0..=59, second @ 0..=59] = *rest else {
        return None;
    };
    // Days in a calendar whose years begin in March, so that a leap day is the last day.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * years + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(((24 * days + hour) * 60 + minute) * 60 + second)
}

fn pair(digits: &[u8]) -> Option<u64> {
    let [ten @ b'0'..=b'9', one @ b'0'..=b'9'] = digits else { return None };
    Some(u64::from(10 * (ten - b'0') + (one - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "000229235959Z", 951_868_799),
            (UTC_TIME, "261128011500Z", 1_795_828_500),
            (UTC_TIME, "491231235959Z", 2_524_607_999),
            (GENERALIZED_TIME, "20500101000000Z", 2_524_608_000),
            (GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(seconds(tag, text.as_bytes()), Some(expected), "{text}");
        }
        for bad in ["", "Z", "261128011500", "261328011500Z", "2611280115Z", "26112801150xZ"] {
            assert_eq!(seconds(UTC_TIME, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        for bytes in [&b""[..], b"0", b"0\x80", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30; 64]] {
            assert_eq!(of(bytes), None);
        }
    }
}
