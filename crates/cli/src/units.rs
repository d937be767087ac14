//! Parses and formats durations and sizes: with a unit, or as a bare number in the option's old unit. Must not depend
//! on their use.

use std::time::Duration;

use bytesize::ByteSize;

/// The maximum duration, small enough that adding it to any time does not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Parses a duration, as in `20s`, `250ms` or `1h 30m`; a bare number is seconds.
///
/// # Errors
/// The text is not a duration; the error says what to write instead.
pub fn seconds(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1))
}

/// The same; a bare number is milliseconds.
///
/// # Errors
/// The text is not a duration; the error says what to write instead.
pub fn millis(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(1))
}

/// The same; a bare number is hours.
///
/// # Errors
/// The text is not a duration; the error says what to write instead.
pub fn hours(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(3_600))
}

fn duration(text: &str, unit: Duration) -> Result<Duration, String> {
    let text = text.trim();
    let long = || format!("it is longer than {}", shown(LONGEST));
    let found = if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        let count: u32 = text.parse().map_err(|_| long())?;
        unit.checked_mul(count).ok_or_else(long)?
    } else {
        humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write a number and a unit, as in 20s, 250ms, 15m or 24h"))?
    };
    if found > LONGEST { Err(long()) } else { Ok(found) }
}

/// Checks that a duration is within these bounds (inclusive).
///
/// # Errors
/// It is not; the error names the bound.
pub fn between(found: Duration, least: Duration, most: Duration) -> Result<Duration, String> {
    if found < least {
        return Err(format!("it must be at least {}", shown(least)));
    }
    if found > most {
        return Err(format!("it must be at most {}", shown(most)));
    }
    Ok(found)
}

/// Parses a size in bytes, as in `64KiB`, `1MiB` or `1000000`.
///
/// # Errors
/// The text is not a size; the error says what to write instead.
pub fn bytes(text: &str) -> Result<u64, String> {
    let size: Result<ByteSize, String> = text.trim().parse();
    size.map(|size| size.as_u64()).map_err(|error| {
        format!("{error}; write a number and a unit, as in 64KiB or 1MiB, or a number of bytes")
    })
}

/// Formats a duration so that it can be parsed again.
pub fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    // Without days and months.
    if duration.subsec_nanos() == 0 && seconds != 0 && seconds.is_multiple_of(3_600) && seconds < 100 * 3_600
    {
        return format!("{}h", seconds / 3_600);
    }
    humantime::format_duration(duration).to_string()
}

/// Formats a size in the largest unit that is exact.
pub fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_a_bare_number_is_in_the_unit_of_before() {
        assert_eq!(seconds("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(seconds(" 20 "), Ok(Duration::from_secs(20)));
        assert_eq!(millis("250"), Ok(Duration::from_millis(250)));
        assert_eq!(millis("1h 30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(hours("24"), hours("24h"));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for bad in ["", "s", "-1", "20 parsecs", "1.5.5s", "20S!"] {
            let error = seconds(bad).unwrap_err();
            assert!(error.contains("20s"), "{bad}: {error}");
        }
        for long in ["200years", "18446744073709551615", "4294967295", "99999999999999999999s"] {
            assert!(hours(long).is_err(), "{long}");
        }
        let bounds = (Duration::from_secs(1), Duration::from_secs(60));
        assert!(between(Duration::ZERO, bounds.0, bounds.1).unwrap_err().contains("1s"));
        assert!(between(Duration::from_secs(61), bounds.0, bounds.1).unwrap_err().contains("1m"));
    }

    #[test]
    fn sizes_have_units_or_are_bytes() {
        assert_eq!(bytes("1MiB"), Ok(1 << 20));
        assert_eq!(bytes("64 KiB"), Ok(64 << 10));
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert_eq!(bytes("1MB"), Ok(1_000_000));
        for bad in ["", "MiB", "-1", "1 XiB"] {
            assert!(bytes(bad).unwrap_err().contains("1MiB"), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        for millis in [0, 250, 20_000, 90_000, 86_400_000, 3_600_000, 31_536_000_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(seconds(&shown(duration)), Ok(duration), "{}", shown(duration));
        }
        assert_eq!(shown(Duration::from_secs(86_400)), "24h");
        for size_ in [0, 1, 1_000, 1_024, 1_536, 1 << 20, 3 << 30] {
            assert_eq!(bytes(&size(size_)), Ok(size_), "{}", size(size_));
        }
    }
}
