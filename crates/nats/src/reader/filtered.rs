//! A reader of the messages on some subjects of a stream, in order and each once, across lost connections, server restarts
//! and lost consumers. Messages that were removed one by one are no gap. It ends when the stream is another one, or has
//! removed its oldest messages up to one that was not read. Must not interpret messages.

use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::pull::SequenceError;
use super::{ATTEMPT, BACKOFF, BACKOFF_MOST, Consumer, ConsumerSource, EntryShape, StreamEntry};
use crate::backoff::backoff;
use crate::described::StreamDescription;
use crate::error::StoreError;
use crate::mux::Connection;

/// Messages per pull: they may have the largest size that the server takes.
const PULL: usize = 128;

/// Why a filtered reader has ended.
#[derive(Debug, thiserror::Error)]
pub enum FilteredError {
    /// The stream no longer has what comes next, or is another one.
    #[error("the stream no longer has what comes next: its first sequence is {first}")]
    Lost {
        /// The first sequence that is there.
        first: u64,
    },
    /// The server refuses the consumer.
    #[error("the server refuses the consumer: {0}")]
    Refused(String),
    /// The stream cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a filtered reader begins.
#[derive(Debug, Clone)]
pub struct Start {
    /// The identity that the stream must have.
    pub identity: String,
    /// Everything up to here was read.
    pub after: u64,
}

/// A reader that pulls the messages on some subjects.
pub struct FilteredReader {
    link: Connection,
    source: ConsumerSource,
    identity: String,
    next: u64,
    consumer: Option<Consumer>,
    caught_up: bool,
    failures: u32,
}

impl FilteredReader {
    /// Reads what a stream has on these subjects, which may have wildcards.
    ///
    /// # Errors
    ///
    /// The stream is another one, does not have what comes next, or cannot be read.
    pub async fn open(
        link: Connection,
        stream: Arc<str>,
        filter: Arc<str>,
        start: Start,
        deadline: Instant,
    ) -> Result<FilteredReader, FilteredError> {
        let source = ConsumerSource { stream, filter: Some(filter), shape: EntryShape::Whole, pull: PULL };
        let Start { identity, after } = start;
        let next = after.saturating_add(1);
        let mut reader =
            FilteredReader { link, source, identity, next, consumer: None, caught_up: false, failures: 0 };
        loop {
            match reader.begin(deadline).await? {
                Ok(()) => return Ok(reader),
                Err(broken) if Instant::now() + BACKOFF_MOST > deadline => {
                    return Err(StoreError::Unavailable(broken.to_string()).into());
                }
                Err(broken) => reader.pause(&broken).await,
            }
        }
    }

    /// Whether everything that the stream had when it was last asked has been read.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Waits for messages, and adds those that have arrived. Not cancel-safe: close the reader if this was dropped.
    ///
    /// # Errors
    ///
    /// It has ended, behind what it added before.
    pub async fn fill(&mut self, entries: &mut Vec<StreamEntry>) -> Result<(), FilteredError> {
        loop {
            let mut read = Vec::new();
            match self.read(&mut read).await? {
                Ok(()) if read.is_empty() => {}
                Ok(()) => {
                    self.failures = 0;
                    entries.append(&mut read);
                    return Ok(());
                }
                Err(broken) => self.pause(&broken).await,
            }
        }
    }

    /// Reads once, and proves that nothing is missing before what it read.
    async fn read(
        &mut self,
        read: &mut Vec<StreamEntry>,
    ) -> Result<Result<(), SequenceError>, FilteredError> {
        let Some(consumer) = &mut self.consumer else {
            return self.begin(Instant::now() + ATTEMPT).await;
        };
        let (before, mut next) = (self.next, self.next);
        let filled = consumer.fill(&self.link, &mut next, read).await;
        let pending = consumer.credit.pending();
        if filled.is_err() {
            self.consumer = None;
        }
        let jumps = next.saturating_sub(before) != read.len() as u64;
        // A consumer skips what was removed. One that is at the end gets each message when it is stored.
        if jumps
            && !self.caught_up
            && let Err(missing) = self.prove(before).await
        {
            read.clear();
            self.consumer = None;
            return missing.map(Err);
        }
        self.next = next;
        if !read.is_empty() {
            self.caught_up = pending == Some(0);
            return Ok(Ok(()));
        }
        Ok(filled)
    }

    /// Asks whether the stream still has everything from a sequence on. An inner error may be temporary.
    async fn prove(&self, next: u64) -> Result<(), Result<SequenceError, FilteredError>> {
        self.describe(next, Instant::now() + ATTEMPT).await.map(|_| ())
    }

    async fn describe(
        &self,
        next: u64,
        deadline: Instant,
    ) -> Result<StreamDescription, Result<SequenceError, FilteredError>> {
        let described = StreamDescription::read(&self.link, &self.source.stream, deadline).await;
        let described = described.map_err(|error| match error {
            StoreError::Unusable(_) | StoreError::NotPermitted => Err(error.into()),
            error => Ok(SequenceError::Server(error.to_string())),
        })?;
        let range = described.range;
        match described.identity == self.identity && range.first <= next && next <= range.last + 1 {
            true => Ok(described),
            false => Err(Err(FilteredError::Lost { first: range.first })),
        }
    }

    /// Creates a consumer. An inner error may be temporary.
    async fn begin(&mut self, deadline: Instant) -> Result<Result<(), SequenceError>, FilteredError> {
        let described = match self.describe(self.next, deadline).await {
            Ok(described) => described,
            Err(Ok(broken)) => return Ok(Err(broken)),
            Err(Err(ended)) => return Err(ended),
        };
        let consumer = match Consumer::open(&self.link, &self.source, self.next, deadline).await {
            Ok(consumer) => consumer,
            Err(SequenceError::NotPermitted) => return Err(StoreError::NotPermitted.into()),
            Err(SequenceError::Refused(why)) => return Err(FilteredError::Refused(why)),
            Err(broken) => return Ok(Err(broken)),
        };
        self.caught_up = consumer.credit.pending() == Some(0);
        if self.caught_up {
            // There is nothing on these subjects up to what was the end before the consumer was created.
            self.next = self.next.max(described.range.last + 1);
        }
        self.consumer = Some(consumer);
        Ok(Ok(()))
    }

    async fn pause(&mut self, broken: &SequenceError) {
        let stream = &*self.source.stream;
        match self.failures {
            0 => tracing::info!(stream, next = self.next, %broken, "creating a new consumer"),
            _ => tracing::debug!(stream, next = self.next, %broken, "creating a new consumer"),
        }
        sleep(backoff(BACKOFF, self.failures, BACKOFF_MOST)).await;
        self.failures = self.failures.saturating_add(1);
    }

    /// Deletes the consumer; without this the server removes it after a while.
    pub async fn close(self) {
        let Some(consumer) = self.consumer else { return };
        let subject = format!("$JS.API.CONSUMER.DELETE.{}.{}", self.source.stream, consumer.name);
        let deadline = Instant::now() + ATTEMPT;
        if let Err(error) = self.link.request(subject, HeaderMap::new(), Bytes::new(), deadline).await {
            tracing::debug!(%error, "a consumer was not deleted: the server removes it when it is inactive");
        }
    }
}

#[cfg(test)]
mod tests;
