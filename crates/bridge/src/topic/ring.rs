//! The most recent messages of a topic, in memory, for any number of readers: each has its own cursor and none has a
//! queue. Bounded in count and bytes. Must not know where messages come from.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// The most messages of a topic: a reader that is further behind is too slow.
const MESSAGES: usize = 8_192;
/// The most bytes of a topic.
const BYTES: usize = 8 << 20;
/// The most bytes of all topics of a thread, beyond what each may have anyway.
const ALL: usize = 128 << 20;
/// The bytes that a topic may have, however many others there are.
const LEAST: usize = 64 << 10;
/// Bytes that a message takes besides its payload, roughly.
const OVERHEAD: usize = 64;

/// The bytes of all rings of a thread.
#[derive(Debug, Default)]
pub(crate) struct RingBytes(AtomicUsize);

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    entries: Mutex<Entries>,
    all: Arc<RingBytes>,
    most: usize,
    most_bytes: usize,
}

/// Messages by ascending sequence, all that there are behind `floor`.
#[derive(Debug, Default)]
struct Entries {
    floor: u64,
    messages: VecDeque<(u64, Bytes)>,
    bytes: usize,
}

/// What a reader finds behind its cursor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RingRead {
    /// The next message, with its sequence.
    Message(u64, Bytes),
    /// Nothing yet.
    Nothing,
    /// The ring has moved on: it no longer has what follows the cursor.
    Gone,
}

impl Ring {
    /// An empty ring. Its first message has a sequence above 0.
    pub(crate) fn new(all: Arc<RingBytes>) -> Ring {
        Ring { entries: Mutex::default(), all, most: MESSAGES, most_bytes: BYTES }
    }

    /// Its first message has a sequence above `floor`. Only while it is empty.
    pub(crate) fn begin_after(&self, floor: u64) {
        self.entries.lock().floor = floor;
    }

    /// Adds messages, by ascending sequence.
    pub(crate) fn push(&self, messages: impl IntoIterator<Item = (u64, Bytes)>) {
        let mut entries = self.entries.lock();
        for (sequence, message) in messages {
            let bytes = size(&message);
            entries.bytes += bytes;
            self.all.0.fetch_add(bytes, Ordering::Relaxed);
            entries.messages.push_back((sequence, message));
            while entries.messages.len() > 1 && self.over(&entries) {
                entries.drop_first(&self.all);
            }
        }
    }

    fn over(&self, entries: &Entries) -> bool {
        entries.messages.len() > self.most
            || entries.bytes > self.most_bytes
            || (entries.bytes > LEAST && self.all.0.load(Ordering::Relaxed) > ALL)
    }

    /// Whether a reader that has all up to this sequence can continue here without a gap.
    pub(crate) fn follows(&self, cursor: u64) -> bool {
        cursor >= self.entries.lock().floor
    }

    /// The first message behind a cursor.
    pub(crate) fn find(&self, cursor: u64) -> RingRead {
        let entries = self.entries.lock();
        if cursor < entries.floor {
            return RingRead::Gone;
        }
        let place = entries.messages.partition_point(|(sequence, _)| *sequence <= cursor);
        match entries.messages.get(place) {
            Some((sequence, message)) => RingRead::Message(*sequence, message.clone()),
            None => RingRead::Nothing,
        }
    }
}

impl Entries {
    fn drop_first(&mut self, all: &RingBytes) {
        if let Some((sequence, message)) = self.messages.pop_front() {
            let bytes = size(&message);
            self.floor = sequence;
            self.bytes -= bytes;
            all.0.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.entries.get_mut().bytes, Ordering::Relaxed);
    }
}

fn size(message: &Bytes) -> usize {
    OVERHEAD + message.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(most: usize, most_bytes: usize) -> Ring {
        Ring { entries: Mutex::default(), all: Arc::default(), most, most_bytes }
    }

    fn messages(sequences: impl IntoIterator<Item = u64>) -> impl Iterator<Item = (u64, Bytes)> {
        sequences.into_iter().map(|sequence| (sequence, Bytes::from(sequence.to_string())))
    }

    /// What a reader gets from a cursor on, and whether it reached the end.
    fn read(ring: &Ring, mut cursor: u64) -> (Vec<u64>, bool) {
        let mut got = Vec::new();
        loop {
            match ring.find(cursor) {
                RingRead::Message(sequence, message) => {
                    assert_eq!(message, sequence.to_string());
                    got.push(sequence);
                    cursor = sequence;
                }
                end => return (got, end == RingRead::Nothing),
            }
        }
    }

    #[test]
    fn a_reader_gets_each_message_behind_its_cursor_once_whatever_sequences_are_left_out() {
        let ring = ring(10, usize::MAX);
        ring.begin_after(40);
        assert_eq!((read(&ring, 40), read(&ring, 39)), ((vec![], true), (vec![], false)));
        ring.push(messages([43, 50, 51]));
        for (cursor, wanted) in [(40, vec![43, 50, 51]), (43, vec![50, 51]), (47, vec![50, 51]), (60, vec![])]
        {
            assert_eq!(read(&ring, cursor), (wanted, true), "{cursor}");
        }
    }

    #[test]
    fn it_is_bounded_and_who_is_further_behind_is_told() {
        let by_count = ring(3, usize::MAX);
        let by_bytes = ring(usize::MAX, 3 * (OVERHEAD + 2));
        for ring in [by_count, by_bytes] {
            ring.push(messages((10..20).map(|number| number * 2)));
            assert_eq!(read(&ring, 32), (vec![34, 36, 38], true));
            assert!(!ring.follows(31) && ring.find(31) == RingRead::Gone);
            assert_eq!(ring.all.0.load(Ordering::Relaxed), 3 * (OVERHEAD + 2));
        }
        let tiny = ring(9, 1);
        tiny.push(messages([1, 2]));
        assert_eq!(read(&tiny, 1), (vec![2], true), "the newest stays, whatever its size");
    }

    #[test]
    fn a_busy_topic_leaves_others_what_they_may_have_anyway() {
        let all = Arc::new(RingBytes(AtomicUsize::new(ALL)));
        let ring = Ring::new(all.clone());
        let message = Bytes::from(vec![7; 1 << 10]);
        ring.push((1..=200).map(|sequence| (sequence, message.clone())));
        let held = ring.entries.lock().bytes;
        assert!((LEAST - 2 * size(&message)..=LEAST).contains(&held), "{held}");
        drop(ring);
        assert_eq!(all.0.load(Ordering::Relaxed), ALL);
    }
}
