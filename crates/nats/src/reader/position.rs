//! The numbering of a stream's entries, for every reader: only this file decides whether an entry is the next one, an old
//! one, or proof that one is missing. Pure: must not depend on a connection.

use async_nats::Message;

/// An entry of a stream.
#[derive(Debug)]
pub struct StreamEntry {
    /// Its sequence.
    pub sequence: u64,
    /// None if the stream has lost it.
    pub message: Option<Message>,
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// It is the next one.
    Next,
    /// It was there before.
    Old,
    /// At least one is missing before it.
    Hole,
}

/// A message of a consumer that is not an entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry without a sequence: {0}")]
pub(super) struct NoSequence(String);

/// Where an entry is for a reader that expects `next`.
pub(super) fn position(next: u64, sequence: u64) -> Position {
    match sequence.cmp(&next) {
        std::cmp::Ordering::Less => Position::Old,
        std::cmp::Ordering::Equal => Position::Next,
        std::cmp::Ordering::Greater => Position::Hole,
    }
}

/// What a consumer says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    /// The entry's sequence in the stream.
    pub(super) sequence: u64,
    /// Its number among those that the consumer has sent, from 1.
    pub(super) number: u64,
    /// How many the consumer still has to send.
    pub(super) pending: u64,
}

/// Reads where it would be acknowledged: `$JS.ACK.[domain.account.]stream.consumer.delivered.sequence.number.time.pending`.
pub(super) fn delivery(message: &Message) -> Result<Delivery, NoSequence> {
    let reply = message.reply.as_deref().unwrap_or_default();
    let place = if reply.split('.').count() == 9 { 5 } else { 7 };
    let mut numbers = reply.split('.').skip(place).map(str::parse);
    match (numbers.next(), numbers.next(), numbers.nth(1)) {
        (Some(Ok(sequence)), Some(Ok(number)), Some(Ok(pending))) if reply.starts_with("$JS.ACK.") => {
            Ok(Delivery { sequence, number, pending })
        }
        _ => Err(NoSequence(reply.to_owned())),
    }
}

/// The entry's sequence.
pub(super) fn sequence(message: &Message) -> Result<u64, NoSequence> {
    delivery(message).map(|delivery| delivery.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(reply: &str) -> Message {
        Message {
            subject: "a".into(),
            reply: Some(reply.into()),
            payload: "{}".into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn an_entry_is_old_next_or_behind_a_hole() {
        let places = [7, 8, 9].map(|sequence| position(8, sequence));
        assert_eq!(places, [Position::Old, Position::Next, Position::Hole]);
    }

    #[test]
    fn both_forms_of_the_acknowledgement_subject_have_the_sequence() {
        let short = "$JS.ACK.EVENTS.c.1.42.9.1700000000.3";
        let long = "$JS.ACK.hub.ACCOUNT.EVENTS.c.1.42.9.1700000000.3.random";
        let wanted = || Ok(Delivery { sequence: 42, number: 9, pending: 3 });
        assert_eq!([short, long].map(|reply| delivery(&message(reply))), [wanted(), wanted()]);
        assert!(sequence(&message("_INBOX.1.2.3.4.5.6.7.8")).is_err());
    }
}
