//! Pull accounting of a consumer: which entry comes next, and how many were requested. Decides what each message of the
//! consumer means. Pure: must not depend on a connection.

use async_nats::{Message, StatusCode};

use super::position::{Position, StreamEntry, delivery, position};

/// Why a consumer has to be replaced. The next one reads again what was lost with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SequenceError {
    #[error("not connected to NATS")]
    Disconnected,
    #[error("reconnected to NATS")]
    Reconnected,
    #[error("the consumer sends neither entries nor heartbeats")]
    Silent,
    #[error("an entry is missing: expected {expected}, received {found}")]
    Hole { expected: u64, found: u64 },
    #[error("the stream has entries {first} to {last}, but {next} comes next: it is another stream")]
    Elsewhere { first: u64, last: u64, next: u64 },
    #[error("no server knows the consumer: it is new, or was removed")]
    Unknown,
    #[error("the server answered: {0}")]
    Server(String),
    #[error("NATS does not permit us to create a consumer (permissions violation)")]
    NotPermitted,
    /// As long as the request is the same.
    #[error("the server refuses: {0}")]
    Refused(String),
}

/// Entries that were requested.
#[derive(Debug)]
pub(super) struct PullState {
    pull: usize,
    /// Those that have not arrived.
    owed: usize,
    /// How many the consumer has sent, where it sends only some of the stream's entries.
    sent: Option<u64>,
    /// How many the consumer still has to send, if it has told.
    pending: Option<u64>,
}

impl PullState {
    /// Requests `pull` entries at once.
    pub(super) fn new(pull: usize) -> PullState {
        PullState { pull, owed: 0, sent: None, pending: None }
    }

    /// The same, of a consumer that sends only some of the stream's entries: it numbers what it sends.
    pub(super) fn of_some(self) -> PullState {
        PullState { sent: Some(0), ..self }
    }

    /// The consumer has told how many it has to send.
    pub(super) fn told(self, pending: u64) -> PullState {
        PullState { pending: Some(pending), ..self }
    }

    /// How many the consumer still has to send, as it told last.
    pub(super) fn pending(&self) -> Option<u64> {
        self.pending
    }

    /// How many to request now: a full pull when half of one has arrived.
    pub(super) fn due(&self) -> Option<usize> {
        (self.owed <= self.pull / 2).then_some(self.pull)
    }

    /// `count` entries were requested.
    pub(super) fn asked(&mut self, count: usize) {
        self.owed += count;
    }

    /// Handles a message, and adds it if it is the next entry.
    pub(super) fn take(
        &mut self,
        message: Message,
        next: &mut u64,
        entries: &mut Vec<StreamEntry>,
    ) -> Result<(), SequenceError> {
        match message.status {
            None | Some(StatusCode::OK) => {
                self.owed = self.owed.saturating_sub(1);
                let found = delivery(&message).map_err(|error| SequenceError::Server(error.to_string()))?;
                let (expected, number) = match self.sent {
                    Some(sent) => (sent + 1, found.number),
                    None => (*next, found.sequence),
                };
                match position(expected, number) {
                    Position::Hole => return Err(SequenceError::Hole { expected, found: number }),
                    Position::Next => {
                        let sequence = found.sequence;
                        *next = sequence + 1;
                        self.sent = self.sent.map(|sent| sent + 1);
                        self.pending = Some(found.pending);
                        entries.push(StreamEntry { sequence, message: Some(message) });
                    }
                    // The server may begin early.
                    Position::Old => {}
                }
                Ok(())
            }
            Some(StatusCode::IDLE_HEARTBEAT) => {
                let (header, expected) = match self.sent {
                    Some(sent) => ("Nats-Last-Consumer", sent + 1),
                    None => ("Nats-Last-Stream", *next),
                };
                match number(&message, header) {
                    // The server sent it before this heartbeat, so it was lost on the way.
                    Some(sent) if sent >= expected => Err(SequenceError::Hole { expected, found: sent + 1 }),
                    _ => Ok(()),
                }
            }
            // The pull request has expired; the rest of it will not arrive.
            Some(StatusCode::TIMEOUT) => {
                let rest =
                    number(&message, "Nats-Pending-Messages").and_then(|rest| usize::try_from(rest).ok());
                self.owed = self.owed.saturating_sub(rest.unwrap_or(self.pull));
                Ok(())
            }
            Some(StatusCode::NO_RESPONDERS) => Err(SequenceError::Unknown),
            Some(status) => {
                Err(SequenceError::Server(format!("{status} {}", message.description.unwrap_or_default())))
            }
        }
    }
}

fn number(message: &Message, header: &str) -> Option<u64> {
    message.headers.as_ref()?.get(header)?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    fn message(reply: String) -> Message {
        Message {
            subject: "orders.event.order_created.x".into(),
            reply: Some(reply.into()),
            payload: "{}".into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    fn entry(sequence: u64) -> Message {
        message(format!("$JS.ACK.ORDERS.c.1.{sequence}.9.1700000000.0"))
    }

    #[test]
    fn a_consumer_that_no_server_knows_is_no_answer_of_the_server() {
        let (mut pull, mut next, mut entries) = (PullState::new(8), 1, Vec::new());
        let gone = status(StatusCode::NO_RESPONDERS, "", 0);
        assert_eq!(pull.take(gone, &mut next, &mut entries), Err(SequenceError::Unknown));
    }

    fn status(status: StatusCode, header: &str, value: u64) -> Message {
        let mut headers = HeaderMap::new();
        headers.insert(header, value.to_string());
        Message { status: Some(status), headers: Some(headers), ..message(String::new()) }
    }

    proptest! {
        #[test]
        fn whatever_is_lost_or_repeated_nothing_is_skipped(came in proptest::collection::vec(1..12_u64, 0..40)) {
            let (mut credit, mut next, mut entries) = (PullState::new(100), 1, Vec::new());
            for sequence in came {
                let expected = next;
                match credit.take(entry(sequence), &mut next, &mut entries) {
                    Ok(()) => prop_assert!(sequence <= expected),
                    Err(broken) => prop_assert_eq!(broken, SequenceError::Hole { expected, found: sequence }),
                }
            }
            let taken: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
            prop_assert_eq!(taken, (1..next).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_heartbeat_shows_a_loss_that_no_entry_follows() {
        let beat = |sent| status(StatusCode::IDLE_HEARTBEAT, "Nats-Last-Stream", sent);
        let (mut credit, mut next, mut entries) = (PullState::new(100), 8, Vec::new());
        assert_eq!(credit.take(beat(7), &mut next, &mut entries), Ok(()));
        assert_eq!(
            credit.take(beat(8), &mut next, &mut entries),
            Err(SequenceError::Hole { expected: 8, found: 9 })
        );
    }

    #[test]
    fn a_consumer_of_some_entries_leaves_out_sequences_and_no_number() {
        let some = |sequence: u64, number: u64, pending: u64| {
            message(format!("$JS.ACK.ORDERS.c.1.{sequence}.{number}.1700000000.{pending}"))
        };
        let (mut credit, mut next, mut entries) = (PullState::new(100).of_some().told(3), 5, Vec::new());
        assert_eq!(credit.pending(), Some(3));
        for (sequence, number, pending) in [(8, 1, 1), (8, 1, 1), (30, 2, 0)] {
            assert_eq!(credit.take(some(sequence, number, pending), &mut next, &mut entries), Ok(()));
        }
        assert_eq!((next, credit.pending(), entries.len()), (31, Some(0), 2));
        let beat = |sent| status(StatusCode::IDLE_HEARTBEAT, "Nats-Last-Consumer", sent);
        let hole = |found| Err(SequenceError::Hole { expected: 3, found });
        assert_eq!(credit.take(beat(2), &mut next, &mut entries), Ok(()));
        assert_eq!(credit.take(beat(3), &mut next, &mut entries), hole(4));
        assert_eq!(credit.take(some(40, 4, 0), &mut next, &mut entries), hole(4));
    }

    #[test]
    fn more_is_asked_for_when_half_has_come_or_a_pull_ran_out() {
        let (mut credit, mut next, mut entries) = (PullState::new(4), 1, Vec::new());
        assert_eq!(credit.due(), Some(4));
        credit.asked(4);
        assert_eq!(credit.due(), None);
        credit.take(entry(1), &mut next, &mut entries).unwrap();
        assert_eq!(credit.due(), None);
        credit.take(entry(2), &mut next, &mut entries).unwrap();
        assert_eq!(credit.due(), Some(4));
        credit.asked(4);
        credit
            .take(status(StatusCode::TIMEOUT, "Nats-Pending-Messages", 2), &mut next, &mut entries)
            .unwrap();
        assert_eq!(credit.due(), None);
        credit
            .take(status(StatusCode::TIMEOUT, "Nats-Pending-Messages", 4), &mut next, &mut entries)
            .unwrap();
        assert_eq!(credit.due(), Some(4));
    }
}
