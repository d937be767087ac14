//! The reader of a stream's messages on one subject: at least once, behind a position that a client names. Must not pass
//! over a message without a word.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use catalog::Subscription;
use nats::failure::RETRY;
use nats::reader::{FilteredError, FilteredReader, Start};
use nats::{Connection, StoreError, StreamDescription, StreamEntry};
use tokio::time::Instant;
use transcode::Scalar;
use wire::failure::FieldViolation;
use wire::{Delivered, Failure, Reason};

use super::decode::Decoder;
use super::position::{Position, Positions, identity};
use crate::topic::{Begin, Feed};
use crate::unfit;

/// How many of a stream's last sequences are read when somebody resumes, so that those who resume soon after, as after a
/// restart, need no reader of their own.
const PRELOAD: u64 = 4_096;

/// A stream's messages on one subject.
pub(super) struct Stored {
    link: Connection,
    stream: Arc<str>,
    filter: Arc<str>,
    decoder: Decoder,
    positions: Positions,
    /// How long the server may take to begin.
    limit: Duration,
}

impl Stored {
    pub(super) fn new(
        link: Connection,
        (stream, subject): (&str, &Subject),
        token: Option<u32>,
        decoder: Decoder,
        limit: Duration,
    ) -> Stored {
        let positions = Positions::new(stream, subject, token);
        Stored { link, stream: stream.into(), filter: subject.as_str().into(), decoder, positions, limit }
    }

    /// The position that a request names; none: from now on.
    pub(super) fn asked(
        &self,
        subscription: &Subscription,
        request: &[u8],
    ) -> Result<Option<Position>, Failure> {
        let Some(field) = &subscription.resume else { return Ok(None) };
        match field.read(request).map_err(|mismatch| unfit(&mismatch))? {
            Some(Scalar::Text(token)) if !token.is_empty() => {
                let position = self.positions.read(&token);
                let why = "is no token of this subscription, or was altered";
                position.map(Some).map_err(|_| Failure::invalid(vec![FieldViolation::new(field.path(), why)]))
            }
            _ => Ok(None),
        }
    }

    /// The token for what was read up to a sequence.
    pub(super) fn token(&self, begin: &Begin, sequence: u64) -> String {
        self.positions.token(Position { identity: identity(&begin.identity), sequence })
    }

    /// Reads from the end on, or a little before it, until nobody watches or the stream is lost.
    pub(super) async fn run(self: Arc<Self>, feed: Arc<Feed>, preload: bool) {
        let stop = feed.stop.clone();
        let (mut reader, begin) = match stop.run_until_cancelled(self.begin(&feed, preload)).await {
            Some(Ok(begun)) => begun,
            Some(Err(error)) => return feed.end(self.failure(&error)),
            None => return,
        };
        feed.begin(begin.clone());
        let mut entries = Vec::new();
        while let Some(filled) = stop.run_until_cancelled(reader.fill(&mut entries)).await {
            feed.push(entries.drain(..).filter_map(|entry| self.message(&begin, entry)).collect());
            if let Err(error) = filled {
                feed.end(self.failure(&error));
                break;
            }
        }
        reader.close().await;
    }

    async fn begin(&self, feed: &Feed, preload: bool) -> Result<(FilteredReader, Begin), FilteredError> {
        let deadline = Instant::now() + self.limit;
        let mut preload = if preload { PRELOAD } else { 0 };
        loop {
            let StreamDescription { identity, range } =
                StreamDescription::read(&self.link, &self.stream, deadline).await?;
            let after = range.last.saturating_sub(preload).max(range.first.saturating_sub(1));
            let begin = Begin { after: range.last, identity: identity.into() };
            match self.open(&begin, after, deadline).await {
                Ok(reader) => {
                    feed.ring.begin_after(after);
                    return Ok((reader, begin));
                }
                // The stream has removed the first of them meanwhile.
                Err(FilteredError::Lost { .. }) if preload > 0 => preload = 0,
                Err(error) => return Err(error),
            }
        }
    }

    async fn open(
        &self,
        begin: &Begin,
        after: u64,
        deadline: Instant,
    ) -> Result<FilteredReader, FilteredError> {
        let start = Start { identity: begin.identity.to_string(), after };
        FilteredReader::open(self.link.clone(), self.stream.clone(), self.filter.clone(), start, deadline)
            .await
    }

    /// A reader for one who is further behind than the messages in memory.
    pub(super) async fn replay(&self, begin: &Begin, after: u64) -> Result<FilteredReader, Failure> {
        let opened = self.open(begin, after, Instant::now() + self.limit).await;
        opened.map_err(|error| self.failure(&error))
    }

    /// An entry of the stream as a message with its token.
    pub(super) fn message(&self, begin: &Begin, entry: StreamEntry) -> Option<(u64, Bytes)> {
        let (sequence, message) = (entry.sequence, entry.message?);
        let read = self.decoder.read(&message.subject, &message.payload)?;
        let position = Position { identity: identity(&begin.identity), sequence };
        Some((sequence, self.positions.mark(read, position)))
    }

    /// Checks a position that the reader has not reached, or that is of another stream of this name.
    pub(super) async fn check(&self, begin: &Begin, position: Position) -> Result<(), Failure> {
        let described = StreamDescription::read(&self.link, &self.stream, Instant::now() + self.limit).await;
        let described = described.map_err(|error| self.failure(&error.into()))?;
        let range = described.range;
        if position.identity != identity(&described.identity) || position.sequence > range.last {
            return Err(lost(range.first));
        }
        if described.identity != *begin.identity {
            let why = "the stream was created again, and its reader has not noticed yet".to_owned();
            return Err(self.failure(&StoreError::Unavailable(why).into()));
        }
        Ok(())
    }

    pub(super) fn failure(&self, error: &FilteredError) -> Failure {
        match error {
            FilteredError::Lost { first } => lost(*first),
            FilteredError::Refused(why) => {
                let message = "the stream cannot be read; the gateway's log says why";
                Failure::new(Reason::StorageUnavailable, message)
                    .delivered(Delivered::No)
                    .retry_after(RETRY)
                    .because(format_args!("the stream {}, subject {}: {why}", self.stream, self.filter))
            }
            FilteredError::Store(error) => {
                nats::failure::of_store(error).because(format_args!("the stream {}: {error}", self.stream))
            }
        }
    }
}

fn lost(first: u64) -> Failure {
    let message =
        "the stream has removed what follows, or was created again: what is missing cannot be read any more";
    Failure::new(Reason::PositionLost, message)
        .delivered(Delivered::No)
        .with("first_sequence", first.to_string())
}
