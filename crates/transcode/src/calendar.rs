//! The Gregorian calendar, and the ranges of timestamps and durations. Must not read a clock.

use std::ops::RangeInclusive;

/// The seconds since 1970 of the years 0001 to 9999.
pub(crate) const TIMESTAMP_SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// The most seconds of a duration, about 10,000 years.
pub(crate) const DURATION_SECONDS: u64 = 315_576_000_000;

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;
/// Days of 400 years.
const ERA: i64 = 146_097;

/// Year, month and day of a day that is counted from 1970-01-01, for the years 0001 to 9999. Years begin in March here,
/// so that leap days are at their ends (Howard Hinnant's `civil_from_days`).
pub(crate) fn date(days: i64) -> (u32, u32, u32) {
    let days = days + EPOCH;
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

/// The day, counted from 1970-01-01; None if there is none. For the years 0001 to 9999.
pub(crate) fn days(year: u32, month: u32, day: u32) -> Option<i64> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year == 0 || day == 0 || day > length {
        return None;
    }
    let (year, month, day) = (i64::from(year), i64::from(month), i64::from(day));
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = if month > 2 { month - 3 } else { month + 9 };
    let day = (153 * month + 2) / 5 + day - 1 + year * 365 + year / 4 - year / 100;
    Some(era * ERA + day - EPOCH)
}
