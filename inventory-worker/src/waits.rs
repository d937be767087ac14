//! The timeouts of a worker, in one place, because each has to end before the one around it. Otherwise the outer wait
//! reports "unknown" although the inner one knows that nothing was done. Must not depend on what is waited for.
//!
//! | inner | outer |
//! |---|---|
//! | a quiet feed before the leader is asked, `QUIET` | waiting for an entry, `CATCH_UP` |
//! | one append or one read of the leader, `APPEND`; an entry that is known to exist, `CATCH_UP` | a batch, `COMMIT` |
//! | a batch, `COMMIT` | the answer to a request: the route's timeout less `RETURN` |
//! | one tombstone, `BURY` | the same |
//! | the pause before a missing stream is looked up again, `store::AGAIN` | an append, `APPEND`; a tombstone |
//! | the guard's detection that a stream is gone: two checks and the pauses before them | the same |
//! | a batch, `COMMIT` | an event or an expired reservation, `EVENT` |
//! | an event, and its dead letter, `EVENT` each | the server's wait for its acknowledgement, `ACK_WAIT` |
//! | a piece of a snapshot, `PIECE_IDLE` | a snapshot's list or contents, `SNAPSHOT` and `PIECE` per piece moved |
//! | a snapshot's list and contents | opening the ledger, `OPEN` and `PIECE` per piece read |
//!
//! The gateway's timeouts are in its own `waits`: the route's timeout is one attempt there.

use std::time::Duration;

/// One append, or one read of the leader, before it is repeated.
pub const APPEND: Duration = Duration::from_secs(1);
/// An entry that is known to exist may take this long to arrive, before the last sequence is read again.
pub const CATCH_UP: Duration = Duration::from_secs(1);
/// How long the feed may deliver nothing that is waited for, before the leader is asked for it.
pub const QUIET: Duration = Duration::from_millis(200);
/// A batch, before its callers are told that the outcome is unknown.
pub const COMMIT: Duration = Duration::from_secs(3);
/// One attempt to append a tombstone.
pub const BURY: Duration = Duration::from_secs(1);
/// An order event, a dead letter, or an expired reservation.
pub const EVENT: Duration = Duration::from_secs(10);
/// How long the server waits for an event's acknowledgement, before it redelivers it to another worker.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// One part of reading or writing snapshots. A snapshot's contents have `PIECE` more for each piece of it.
pub const SNAPSHOT: Duration = Duration::from_secs(30);
/// The average time that a piece of a snapshot, 128 KiB, may take.
pub const PIECE: Duration = Duration::from_secs(1);
/// The most that a single piece may take.
pub const PIECE_IDLE: Duration = Duration::from_secs(10);
/// Opening the ledger: the snapshot and the entries after it. It has `PIECE` more for each piece of the snapshot.
pub const OPEN: Duration = Duration::from_secs(120);
/// The time reserved for the way back of an answer, so that it arrives before the caller gives up. A tenth of the time
/// left, if that is less.
pub const RETURN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use contract::route;
    use nats::{guard, store};

    use super::*;

    #[test]
    fn each_wait_ends_before_the_one_around_it() {
        let attempt = route::ALL.iter().map(|route| route.timeout).min().unwrap();
        let answer = attempt - RETURN;
        let gone = 2 * (guard::PAUSE + guard::CHECK_INTERVAL).min(guard::PAUSE + Duration::from_secs(1));
        for (what, inner, outer) in [
            ("a look for an entry, waiting for it", QUIET, CATCH_UP),
            ("an append, its batch", APPEND, COMMIT),
            ("an entry, its batch", CATCH_UP, COMMIT),
            // The last attempt of either begins before the batch ends.
            ("a batch, an answer", COMMIT, answer),
            // The lookups before and after the pause take time as well.
            ("asking again for a stream, an append", 3 * store::RETRY_PAUSE, APPEND),
            ("asking again for a stream, a tombstone", 3 * store::RETRY_PAUSE, BURY),
            ("a tombstone, an answer", BURY, answer),
            ("a stream that is gone, an answer", gone, answer),
            ("an answer, an attempt", answer, attempt),
            ("a batch, an event", COMMIT, EVENT),
            ("an event and its dead letter, its acknowledgement", 2 * EVENT, ACK_WAIT),
            ("a piece of a snapshot, its contents", PIECE_IDLE, SNAPSHOT),
            ("a snapshot's list and contents, opening", 2 * SNAPSHOT, OPEN),
        ] {
            assert!(inner < outer, "{what}: {inner:?} is not below {outer:?}");
        }
    }
}
