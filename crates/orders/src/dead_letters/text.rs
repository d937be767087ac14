//! Dead letters as texts, for a terminal and for programs. Must not read or change any.

use std::time::{SystemTime, UNIX_EPOCH};

use order_streams::DeadLetter;
use serde_json::{Value, json};

/// A dead letter that was given to a worker.
#[derive(Debug)]
pub struct Replayed {
    /// Its id.
    pub id: u64,
    /// The ids that were removed with it, or would be; or why none was.
    pub end: Result<Vec<u64>, String>,
}

pub(super) fn object(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "when": when(letter.at),
        "event": letter.sequence,
        "subject": letter.subject,
        "error": letter.error,
    })
}

/// A time as proto3 JSON writes it, in milliseconds.
pub(super) fn when(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
    let nanos = i32::try_from(since.subsec_millis()).unwrap_or(0) * 1_000_000;
    let written = serde_json::to_value(pbjson_types::Timestamp { seconds, nanos }).ok();
    written.as_ref().and_then(Value::as_str).unwrap_or_default().replace("+00:00", "Z")
}

/// Escapes control characters, as the text comes from others and goes to a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_somebody_else_wrote_does_nothing_to_a_terminal() {
        assert_eq!(plain("no \u{1b}[2Jorder\n é"), "no \\u{1b}[2Jorder\\n é");
    }

    #[test]
    fn a_moment_is_written_as_others_read_it() {
        let at = UNIX_EPOCH + Duration::from_millis(1_795_530_103_255);
        assert_eq!(when(at), "2026-11-24T14:21:43.255Z");
    }
}
