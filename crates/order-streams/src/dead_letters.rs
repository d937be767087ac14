//! Dead letters: events that could not be processed, each with its error. They are stored, read, removed, and
//! discarded; a record in the same stream then says who discarded it, and why. Must not depend on what an event is
//! about.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use contract::header;
use nats::header::{number, put};
use nats::{Connection, Expect, Store, StoreError};
use tokio::time::Instant;
use wire::ascii;

use crate::{DEAD_LETTERS, DISCARDED, ORDERS};

const LIMIT: Duration = Duration::from_secs(10);

/// The stream of dead letters, and the stream of the events.
#[derive(Clone)]
pub struct DeadLetters {
    letters: Store,
    events: Store,
}

/// A dead letter: an event that could not be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its sequence in the dead-letter stream.
    pub id: u64,
    /// When it was stored.
    pub at: SystemTime,
    /// Why the event could not be processed.
    pub error: String,
    /// The event's sequence; `None` if the letter lacks it.
    pub sequence: Option<u64>,
    /// The event's subject.
    pub subject: String,
    /// The event's payload.
    pub payload: Bytes,
}

/// A discarded dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discarded {
    /// The letter with its original id; `at` is the time when it was discarded.
    pub letter: DeadLetter,
    /// The reason.
    pub why: String,
    /// The person who discarded it.
    pub by: String,
}

impl DeadLetters {
    /// The dead letters, accessed over this connection.
    pub fn new(link: &Connection) -> DeadLetters {
        DeadLetters {
            letters: Store::new(link.clone(), DEAD_LETTERS),
            events: Store::new(link.clone(), ORDERS),
        }
    }

    /// The first letter with this id or a later one.
    ///
    /// # Errors
    ///
    /// The stream could not be read within 10 s a message, as for [`Store::next`].
    pub async fn next(&self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        let mut from = id;
        while let Some(message) = self.letters.next(">", from, Instant::now() + LIMIT).await? {
            if is_letter(&message) {
                return Ok(Some(read(message)));
            }
            from = message.sequence + 1;
        }
        Ok(None)
    }

    /// The first record of a discarded letter at or after a sequence, with the record's own sequence.
    ///
    /// # Errors
    ///
    /// The stream could not be read within 10 s, as for [`Store::next`].
    pub async fn next_discarded(&self, from: u64) -> Result<Option<(u64, Discarded)>, StoreError> {
        let record = self.letters.next(DISCARDED, from, Instant::now() + LIMIT).await?;
        Ok(record.map(|record| (record.sequence, read_discarded(record))))
    }

    /// Removes a letter after storing a record of it: if the process stops in between, both remain and nothing is lost.
    /// Returns whether the letter existed.
    ///
    /// # Errors
    ///
    /// The record was not stored, or maybe ([`StoreError::Undetermined`], [`StoreError::Unexpected`]), and the letter is
    /// still there; or the record was stored, and the letter is maybe still there, as for [`Store::remove`]. It may be
    /// repeated: then there may be two records.
    pub async fn discard(&self, letter: &DeadLetter, why: &str, by: &str) -> Result<bool, StoreError> {
        let mut headers = HeaderMap::new();
        number(&mut headers, header::DEAD_LETTER_ID, letter.id);
        for (name, text) in [
            (header::DISCARD_REASON, why),
            (header::DISCARDED_BY, by),
            (header::DEAD_LETTER_ERROR, &letter.error),
            (header::DEAD_LETTER_SUBJECT, &letter.subject),
        ] {
            put(&mut headers, name, ascii::encode(text));
        }
        if let Some(sequence) = letter.sequence {
            number(&mut headers, header::DEAD_LETTER_SEQUENCE, sequence);
        }
        let store = |payload| {
            self.letters.append(DISCARDED, headers.clone(), payload, Expect::Any, Instant::now() + LIMIT)
        };
        match store(letter.payload.clone()).await {
            // As with the letter itself: the event is in its stream.
            Err(StoreError::TooLarge { .. }) => store(Bytes::new()).await?,
            stored => stored?,
        };
        self.remove(letter.id).await
    }

    /// The newest letters, newest first, at most this many. Removed letters leave gaps, which cost a few requests each;
    /// letters that cannot be found within this limit of requests are left out.
    ///
    /// # Errors
    ///
    /// The stream could not be read, or not within `limit` in all, as for [`Store::next`]: then nothing is returned.
    pub async fn newest(
        &self,
        most: usize,
        requests: u32,
        limit: Duration,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let deadline = Instant::now() + limit;
        let range = self.letters.range(deadline).await?;
        let mut search = Search { letters: &self.letters, deadline, left: requests };
        let (mut found, mut below) = (Vec::new(), range.last.saturating_add(1));
        while found.len() < most && below > range.first {
            let Some(message) = search.before(below, range.first).await? else { break };
            below = message.sequence;
            if is_letter(&message) {
                found.push(read(message));
            }
        }
        Ok(found)
    }

    /// The letter with this id.
    ///
    /// # Errors
    ///
    /// The stream could not be read within 10 s, as for [`Store::get`].
    pub async fn get(&self, id: u64) -> Result<Option<DeadLetter>, StoreError> {
        Ok(self.letters.get(id, Instant::now() + LIMIT).await?.filter(is_letter).map(read))
    }

    /// Whether the event stream holds the letter's event at its sequence: after a restore, another may be there.
    ///
    /// # Errors
    ///
    /// The event stream could not be read within 10 s, as for [`Store::get`].
    pub async fn recorded(&self, letter: &DeadLetter) -> Result<bool, StoreError> {
        let Some(sequence) = letter.sequence else { return Ok(false) };
        let event = self.events.get(sequence, Instant::now() + LIMIT).await?;
        // A letter has no payload if it did not fit beside the error.
        let same = |payload: &Bytes| letter.payload.is_empty() || *payload == letter.payload;
        Ok(event.is_some_and(|event| *event.subject == *letter.subject && same(&event.payload)))
    }

    /// The ids of all letters by their event.
    ///
    /// # Errors
    ///
    /// As for [`DeadLetters::next`]: nothing is returned, not even the letters that were read.
    pub async fn by_event(&self) -> Result<HashMap<u64, Vec<u64>>, StoreError> {
        let (mut events, mut from) = (HashMap::<u64, Vec<u64>>::new(), 1);
        while let Some(letter) = self.next(from).await? {
            from = letter.id + 1;
            if let Some(sequence) = letter.sequence {
                events.entry(sequence).or_default().push(letter.id);
            }
        }
        Ok(events)
    }

    /// Removes a letter and overwrites its contents. Returns whether it existed.
    ///
    /// # Errors
    ///
    /// The letter is still there, or maybe, as for [`Store::remove`]. It may be repeated.
    pub async fn remove(&self, id: u64) -> Result<bool, StoreError> {
        self.letters.remove(id, Instant::now() + LIMIT).await
    }
}

/// Searches backward in a stream that can only be read forward.
struct Search<'a> {
    letters: &'a Store,
    deadline: Instant,
    /// Requests left.
    left: u32,
}

impl Search<'_> {
    /// The last message in `first..end`; `None` if there is none, or the search takes too long.
    async fn before(&mut self, end: u64, first: u64) -> Result<Option<StreamMessage>, StoreError> {
        let (mut step, mut from, mut high) = (1, end - 1, end);
        // In growing steps backward, until there is one.
        let mut best = loop {
            match self.from(from, high).await? {
                Some(found) => break found,
                None if from <= first || self.left == 0 => return Ok(None),
                None => high = from,
            }
            step *= 2;
            from = from.saturating_sub(step).max(first);
        };
        // The last one between it and the part known to be empty.
        while best.sequence + 1 < high {
            if self.left == 0 {
                return Ok(None);
            }
            let middle = best.sequence + 1 + (high - best.sequence - 1) / 2;
            match self.from(middle, high).await? {
                Some(found) => best = found,
                None => high = middle,
            }
        }
        Ok(Some(best))
    }

    /// The first message in `from..end`.
    async fn from(&mut self, from: u64, end: u64) -> Result<Option<StreamMessage>, StoreError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let found = self.letters.next(">", from, self.deadline).await?;
        Ok(found.filter(|found| found.sequence < end))
    }
}

fn is_letter(message: &StreamMessage) -> bool {
    message.subject.as_str() != DISCARDED
}

fn read_discarded(record: StreamMessage) -> Discarded {
    let header = |name| text(&record.headers, name).unwrap_or_default();
    let (why, by) = (header(header::DISCARD_REASON), header(header::DISCARDED_BY));
    let id = header(header::DEAD_LETTER_ID).parse().unwrap_or_default();
    Discarded { letter: DeadLetter { id, ..read(record) }, why, by }
}

fn read(message: StreamMessage) -> DeadLetter {
    let header = |name| text(&message.headers, name);
    DeadLetter {
        id: message.sequence,
        at: SystemTime::from(message.time),
        error: header(header::DEAD_LETTER_ERROR).unwrap_or_default(),
        sequence: header(header::DEAD_LETTER_SEQUENCE).and_then(|text| text.parse().ok()),
        subject: header(header::DEAD_LETTER_SUBJECT).unwrap_or_default(),
        payload: message.payload.clone(),
    }
}

fn text(headers: &HeaderMap, name: &'static str) -> Option<String> {
    headers.get(name).map(|value| ascii::decode(value.as_str()).into_owned())
}
