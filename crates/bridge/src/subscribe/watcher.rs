//! One watch of a topic: a cursor that moves through what a stream had before, and then through the messages in memory.
//! Must not hold messages itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catalog::Route;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout_at};
use wire::{Delivered, Failure, Reason};

use super::replay::{Replay, ReplayPermit, Replayed};
use super::stored::Stored;
use crate::concurrency::Permit;
use crate::metrics::CatalogMetrics;
use crate::share::Share;
use crate::topic::{Begin, Phase, RingRead, Signal, Topic};

/// When those who cannot catch up now may try again.
const LATER: Duration = Duration::from_secs(1);

/// Who watches.
pub(super) struct Viewer {
    pub(super) route: Arc<Route>,
    pub(super) metrics: CatalogMetrics,
    /// When it ends by itself.
    pub(super) ends: Option<Instant>,
    /// The caller's permit.
    pub(super) hold: Option<Arc<Share>>,
    pub(super) _permit: Permit,
}

/// A watch.
pub(super) struct Watcher {
    topic: Arc<Topic>,
    signal: watch::Receiver<Signal>,
    /// All messages up to here were delivered.
    cursor: u64,
    source: Source,
    /// None without a stream.
    history: Option<Box<History>>,
    viewer: Viewer,
}

/// What a stream had before the messages in memory.
struct History {
    stored: Arc<Stored>,
    begin: Begin,
    catching_up: Arc<Semaphore>,
}

/// Where the next message comes from.
enum Source {
    /// The ring, or a replay first if the ring has already dropped what follows the cursor.
    Start,
    /// What the stream had before.
    Replay(mpsc::Receiver<Replayed>),
    /// The ring, which has to have what follows the cursor.
    Ring,
}

type Message = Result<Bytes, Failure>;

impl Watcher {
    /// A watch of what follows the cursor.
    pub(super) fn new(topic: Arc<Topic>, cursor: u64, viewer: Viewer) -> Watcher {
        let signal = topic.feed().signal();
        Watcher { topic, signal, cursor, source: Source::Ring, history: None, viewer }
    }

    /// Lets it read what a stream had before.
    ///
    /// # Errors
    /// It has to, and cannot.
    pub(super) async fn resume(
        &mut self,
        stored: Arc<Stored>,
        begin: Begin,
        catching_up: Arc<Semaphore>,
    ) -> Result<(), Failure> {
        self.history = Some(Box::new(History { stored, begin, catching_up }));
        self.source = Source::Start;
        match self.topic.feed().ring.follows(self.cursor) {
            true => Ok(()),
            false => self.replay().await,
        }
    }

    /// The next message, and what gives those behind it; none after an error.
    pub(super) async fn step(watcher: Option<Watcher>) -> Option<(Message, Option<Watcher>)> {
        let mut watcher = watcher?;
        let message = match watcher.viewer.ends {
            Some(ends) => timeout_at(ends, watcher.advance()).await.unwrap_or_else(|_| Err(watcher.over())),
            None => watcher.advance().await,
        };
        let rest = message.is_ok().then_some(watcher);
        Some((message, rest))
    }

    async fn advance(&mut self) -> Message {
        loop {
            let message = match &mut self.source {
                Source::Replay(replayed) => {
                    let replayed = replayed.recv().await;
                    self.take(replayed)?
                }
                Source::Start | Source::Ring => self.look().await?,
            };
            if let Some(message) = message {
                return Ok(message);
            }
        }
    }

    /// Handles what a replay tells.
    fn take(&mut self, replayed: Option<Replayed>) -> Result<Option<Bytes>, Failure> {
        match replayed {
            Some(Replayed::Message(sequence, message)) => {
                self.cursor = sequence;
                Ok(Some(message))
            }
            Some(Replayed::Done(sequence)) => {
                // The ring may have moved on while the client was slow: then another replay follows.
                (self.cursor, self.source) = (sequence, Source::Start);
                Ok(None)
            }
            Some(Replayed::Failed(failure)) => Err(self.marked(failure)),
            None => Err(self.slow()),
        }
    }

    /// Looks into the ring, and waits if there is nothing new.
    async fn look(&mut self) -> Result<Option<Bytes>, Failure> {
        // Read before the ring: what comes later changes it again.
        let ended = match &self.signal.borrow_and_update().phase {
            Phase::Ended(failure) => Some(failure.clone()),
            Phase::Starting | Phase::Open(_) => None,
        };
        match self.topic.feed().ring.find(self.cursor) {
            RingRead::Message(sequence, message) => {
                (self.cursor, self.source) = (sequence, Source::Ring);
                return Ok(Some(message));
            }
            RingRead::Gone if matches!(self.source, Source::Ring) => return Err(self.slow()),
            RingRead::Gone => {
                self.replay().await?;
                return Ok(None);
            }
            RingRead::Nothing => self.source = Source::Ring,
        }
        if let Some(failure) = ended {
            return Err(self.marked(failure));
        }
        let gone = self.signal.changed().await;
        gone.map(|()| None).map_err(|_| Failure::new(Reason::Internal, "the reader is gone"))
    }

    /// Begins to read what the stream had before.
    async fn replay(&mut self) -> Result<(), Failure> {
        let Some(history) = &self.history else { return Err(self.slow()) };
        let History { stored, begin, catching_up } = &**history;
        let shares = self.viewer.hold.as_ref().map(|hold| hold.shares());
        let permit = ReplayPermit::take(catching_up, shares).map_err(|full| {
            let route = &self.viewer.route.path;
            self.marked(full.failure(&format!("{route}: subscribers that read what was before"), LATER))
        })?;
        let feed = self.topic.feed().clone();
        // The reader is opened later: it reads all that there was until now.
        let (cursor, known) = (self.cursor, begin.after.max(feed.last()));
        let reader = stored.replay(begin, cursor).await?;
        let replay = Replay { feed, stored: stored.clone(), begin: begin.clone(), cursor, known };
        self.source = Source::Replay(replay.start(reader, permit));
        Ok(())
    }

    fn slow(&self) -> Failure {
        if let Some(metrics) = self.viewer.metrics.of(&self.viewer.route) {
            metrics.slow.increment();
        }
        let message = "the client reads messages more slowly than they come: read faster";
        self.marked(Failure::new(Reason::SlowClient, message).delivered(Delivered::Yes))
    }

    fn over(&self) -> Failure {
        let failure = Failure::new(Reason::Deadline, "the caller's deadline passed");
        self.marked(failure.delivered(Delivered::Yes))
    }

    /// A failure with the token to continue behind, where there is one.
    fn marked(&self, failure: Failure) -> Failure {
        match &self.history {
            Some(history) if !failure.is(Reason::PositionLost) => {
                failure.with("resume_token", history.stored.token(&history.begin, self.cursor))
            }
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_waits_takes_little_memory() {
        assert!(size_of::<Watcher>() + size_of::<History>() + size_of::<Stored>() <= 768);
    }
}
