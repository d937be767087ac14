//! What became of the messages of one stream, numbered from 1: stored, unknown, or neither. Must not know how they were
//! sent.

use std::collections::BTreeSet;

use nats::PubAck;
use wire::{Delivered, Failure};

/// The messages of one stream. It holds no more numbers than may be unacknowledged.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// All up to this one are stored.
    prefix: u64,
    /// Those behind it that are stored.
    beyond: BTreeSet<u64>,
    /// Those that may be stored.
    unknown: BTreeSet<u64>,
    /// The acknowledgement of the last one that is stored, with its number.
    last: Option<(u64, PubAck)>,
}

impl Outcomes {
    /// A message is stored.
    pub(super) fn store(&mut self, number: u64, ack: PubAck) {
        self.unknown.remove(&number);
        if self.last.as_ref().is_none_or(|(last, _)| *last < number) {
            self.last = Some((number, ack));
        }
        self.beyond.insert(number);
        while self.beyond.remove(&(self.prefix + 1)) {
            self.prefix += 1;
        }
    }

    /// A message may be stored.
    pub(super) fn doubt(&mut self, number: u64) {
        self.unknown.insert(number);
    }

    /// The first message that may be stored.
    pub(super) fn first_unknown(&self) -> Option<u64> {
        self.unknown.first().copied()
    }

    /// How many are stored.
    pub(super) fn stored(&self) -> u64 {
        self.prefix + self.beyond.len() as u64
    }

    /// The acknowledgement of the last one that is stored.
    pub(super) fn last(&self) -> Option<&PubAck> {
        self.last.as_ref().map(|(_, ack)| ack)
    }

    /// Tells the caller of a stream that failed: `stored` messages from the first one on, `stored_beyond` behind the first
    /// one that is not, and `unknown`, a range of numbers such as `8-11`, or 0.
    pub(super) fn tell(&self, failure: Failure) -> Failure {
        let unknown = match (self.unknown.first(), self.unknown.last()) {
            (Some(first), Some(last)) => format!("{first}-{last}"),
            _ => "0".to_owned(),
        };
        let delivered = match (self.unknown.is_empty(), self.stored()) {
            (false, _) => Delivered::Unknown,
            (true, 0) => Delivered::No,
            (true, _) => Delivered::Yes,
        };
        failure
            .delivered(delivered)
            .with("stored", self.prefix.to_string())
            .with("stored_beyond", self.beyond.len().to_string())
            .with("unknown", unknown)
    }
}

#[cfg(test)]
mod tests {
    use wire::Reason;

    use super::*;

    fn ack(sequence: u64) -> PubAck {
        PubAck { stream: "S".to_owned(), sequence, duplicate: false }
    }

    #[track_caller]
    fn assert_told(outcomes: &Outcomes, expected: [&str; 4]) {
        let told = outcomes.tell(Failure::new(Reason::Draining, "bye")).told();
        assert_eq!(
            ["stored", "stored_beyond", "unknown", "delivered"].map(|key| told[key].as_str()),
            expected
        );
    }

    #[test]
    fn what_is_told_is_what_was_acknowledged() {
        let mut outcomes = Outcomes::default();
        assert_told(&outcomes, ["0", "0", "0", "no"]);
        outcomes.doubt(1);
        assert_told(&outcomes, ["0", "0", "1-1", "unknown"]);
        for number in [2, 5, 4] {
            outcomes.store(number, ack(number + 10));
        }
        outcomes.doubt(3);
        assert_told(&outcomes, ["0", "3", "1-3", "unknown"]);
        assert_eq!((outcomes.first_unknown(), outcomes.last()), (Some(1), Some(&ack(15))));
        outcomes.store(1, ack(1));
        assert_told(&outcomes, ["2", "2", "3-3", "unknown"]);
        outcomes.store(3, ack(3));
        assert_told(&outcomes, ["5", "0", "0", "yes"]);
        assert_eq!((outcomes.stored(), outcomes.last()), (5, Some(&ack(15))));
    }
}
