//! A plain table for a terminal: label on the left, number on the right, then a remark. Must not depend on what is
//! counted.

use std::fmt;
use std::time::Duration;

/// Rows, aligned when printed.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    label: String,
    value: String,
    remark: String,
}

impl Table {
    /// Adds a row.
    pub(crate) fn row(&mut self, label: &str, value: impl fmt::Display, remark: impl Into<String>) {
        self.rows.push(Row { label: label.to_owned(), value: value.to_string(), remark: remark.into() });
    }

    /// Adds an indented row for each part of the previous row.
    pub(crate) fn parts<'a>(&mut self, parts: impl IntoIterator<Item = (&'a String, &'a u64)>) {
        for (label, count) in parts {
            self.row(&format!("  {label}"), grouped(*count), "");
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&Row) -> &str| {
            self.rows.iter().map(|row| text(row).chars().count()).max().unwrap_or_default()
        };
        let (label, value) = (width(|row| &row.label), width(|row| &row.value));
        for row in &self.rows {
            let line = format!("{:label$}  {:>value$}  {}", row.label, row.value, row.remark);
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number with commas between its thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration in a suitable unit.
pub(crate) fn duration(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_left_and_numbers_right() {
        let mut table = Table::default();
        table.row("placed", grouped(12_345), "");
        table.parts([(&"RÄTSEL".to_owned(), &7)]);
        assert_eq!(table.to_string(), "placed    12,345\n  RÄTSEL       7\n");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"].map(str::to_owned)
        );
    }

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        let texts = [350, 12_300, 2_500_000].map(|micros| duration(Duration::from_micros(micros)));
        assert_eq!(texts, ["350 µs", "12.3 ms", "2.5 s"].map(str::to_owned));
    }
}
