//! Dead letters: events that could not be worked off, each with its error, as they are stored, read, removed and discarded:
//! then a record in the same stream says who did it, and why. Must never know what an event is about.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use contract::ascii;
use contract::header;
use tokio::time::Instant;

use crate::header::{number, put};
use crate::inbox::Link;
use crate::store::{Expect, Store, StoreError};
use crate::streams::{DEAD_LETTERS, DISCARDED, ORDERS};

const LIMIT: Duration = Duration::from_secs(10);

/// The stream of dead letters, and that of the events.
#[derive(Clone)]
pub struct Letters {
    letters: Store,
    events: Store,
}

/// An event that could not be worked off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its sequence among the dead letters.
    pub id: u64,
    /// When it was stored.
    pub at: SystemTime,
    /// Why it could not be worked off.
    pub error: String,
    /// The event's sequence; `None` where the letter does not say.
    pub sequence: Option<u64>,
    /// The event's subject.
    pub subject: String,
    /// The event's payload.
    pub payload: Bytes,
}

/// A letter that was discarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discarded {
    /// The letter as it was, and under the id that it had; but `at` is when it was discarded.
    pub letter: Letter,
    /// Why.
    pub why: String,
    /// Who did it.
    pub by: String,
}

impl Letters {
    /// Dead letters over this connection.
    pub fn new(link: &Link) -> Letters {
        Letters { letters: Store::new(link.clone(), DEAD_LETTERS), events: Store::new(link.clone(), ORDERS) }
    }

    /// The first letter from an id on.
    pub async fn next(&self, id: u64) -> Result<Option<Letter>, StoreError> {
        let mut from = id;
        while let Some(message) = self.letters.next(">", from, Instant::now() + LIMIT).await? {
            if is_letter(&message) {
                return Ok(Some(read(message)));
            }
            from = message.sequence + 1;
        }
        Ok(None)
    }

    /// The first record of a discarded letter from a sequence on, and its own sequence.
    pub async fn next_discarded(&self, from: u64) -> Result<Option<(u64, Discarded)>, StoreError> {
        let record = self.letters.next(DISCARDED, from, Instant::now() + LIMIT).await?;
        Ok(record.map(|record| (record.sequence, read_discarded(record))))
    }

    /// Removes a letter, after a record of that was stored: of an end in between both are left, and nothing is lost.
    /// Whether it was there.
    pub async fn discard(&self, letter: &Letter, why: &str, by: &str) -> Result<bool, StoreError> {
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
            // As with the letter itself: the event is on the record.
            Err(StoreError::TooLarge { .. }) => store(Bytes::new()).await?,
            stored => stored?,
        };
        self.remove(letter.id).await
    }

    /// The newest letters, the newest first, at most so many. Letters that were removed leave gaps, which cost a few
    /// requests each; what cannot be found with so many requests, or in so long, is left out.
    pub async fn newest(
        &self,
        most: usize,
        requests: u32,
        limit: Duration,
    ) -> Result<Vec<Letter>, StoreError> {
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
    pub async fn get(&self, id: u64) -> Result<Option<Letter>, StoreError> {
        Ok(self.letters.get(id, Instant::now() + LIMIT).await?.filter(is_letter).map(read))
    }

    /// The last id that there was.
    pub async fn last(&self) -> Result<u64, StoreError> {
        self.letters.range(Instant::now() + LIMIT).await.map(|range| range.last)
    }

    /// Whether the letter's event is on record as the letter has it: after a restore, its number may be another's.
    pub async fn recorded(&self, letter: &Letter) -> Result<bool, StoreError> {
        let Some(sequence) = letter.sequence else { return Ok(false) };
        let event = self.events.get(sequence, Instant::now() + LIMIT).await?;
        // One whose payload did not fit beside its error has none.
        let same = |payload: &Bytes| letter.payload.is_empty() || *payload == letter.payload;
        Ok(event.is_some_and(|event| *event.subject == *letter.subject && same(&event.payload)))
    }

    /// The ids of all letters by their event.
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

    /// Removes a letter, and overwrites what it said. Whether it was there.
    pub async fn remove(&self, id: u64) -> Result<bool, StoreError> {
        self.letters.remove(id, Instant::now() + LIMIT).await
    }
}

/// Looks backward in a stream that can only be read forward.
struct Search<'a> {
    letters: &'a Store,
    deadline: Instant,
    /// Requests that may still be made.
    left: u32,
}

impl Search<'_> {
    /// The last message before a sequence, not before another; none if there is none, or it takes too long.
    async fn before(&mut self, end: u64, first: u64) -> Result<Option<StreamMessage>, StoreError> {
        let (mut step, mut from, mut high) = (1, end - 1, end);
        // Further and further back, until there is one.
        let mut best = loop {
            match self.from(from, high).await? {
                Some(found) => break found,
                None if from <= first || self.left == 0 => return Ok(None),
                None => high = from,
            }
            step *= 2;
            from = from.saturating_sub(step).max(first);
        };
        // The last one between it and where there is none.
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

    /// The first message from a sequence on, before another.
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
    Discarded { letter: Letter { id, ..read(record) }, why, by }
}

fn read(message: StreamMessage) -> Letter {
    let header = |name| text(&message.headers, name);
    Letter {
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
