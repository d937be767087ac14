//! One watch: a cursor that moves through the history of the record (a replay) and then through the ring, and delivers
//! every change of its orders once. Must not depend on connections or rpcs.

use std::sync::Arc;
use std::time::Duration;

use contract::OrderReason;
use contract::orders::v1 as pb;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use wire::Failure;

use super::replay::{self, ReplayEvent};
use super::ring::{Event, RingRead};
use super::shared::{Leave, Shared, WatchPermit, refused};
use crate::order::request::Whose;
use crate::share::REPLAYS;

/// A bookmark is sent after this time without a message, so that the client's token stays close to the end.
const BOOKMARK: Duration = Duration::from_secs(30);

/// A watch.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    whose: Whose,
    /// All changes up to here have been delivered.
    cursor: u64,
    head: watch::Receiver<u64>,
    source: Source,
    /// Whether the first bookmark was sent.
    begun: bool,
    place: WatchPermit,
    leave: Leave,
}

/// Where the next change comes from.
enum Source {
    /// The ring, or a replay first if the ring has already dropped what follows the cursor.
    Start,
    /// The history.
    Replay(mpsc::Receiver<ReplayEvent>),
    /// The ring, which has to hold what follows the cursor.
    Ring,
    /// Nowhere: the watch has ended.
    Over,
}

type Message = Result<pb::WatchOrdersResponse, Failure>;

impl Watcher {
    pub(super) fn new(
        shared: Arc<Shared>,
        whose: Whose,
        cursor: u64,
        place: WatchPermit,
        leave: Leave,
    ) -> Watcher {
        let head = shared.ring.head();
        Watcher { shared, whose, cursor, head, source: Source::Start, begun: false, place, leave }
    }

    /// The next message; none after an error.
    pub(super) async fn step(mut self) -> Option<(Message, Watcher)> {
        if matches!(self.source, Source::Over) {
            return None;
        }
        let message =
            if std::mem::replace(&mut self.begun, true) { self.next().await } else { Ok(self.bookmark()) };
        if message.is_err() {
            self.source = Source::Over;
        }
        Some((message, self))
    }

    async fn next(&mut self) -> Message {
        // `advance` is cancel-safe: the cursor says what was delivered.
        let mut leave = std::mem::replace(&mut self.leave, Box::pin(std::future::pending()));
        let message = tokio::select! {
            biased;
            () = &mut leave => return Err(self.shared.moved(self.cursor)),
            message = timeout(BOOKMARK, self.advance()) => message,
        };
        self.leave = leave;
        message.unwrap_or_else(|_| Ok(self.bookmark()))
    }

    fn bookmark(&self) -> pb::WatchOrdersResponse {
        pb::WatchOrdersResponse {
            order: None,
            event: pb::OrderEvent::Bookmark.into(),
            resume_token: self.shared.tokens.resume(self.cursor),
        }
    }

    /// Waits for the next change.
    async fn advance(&mut self) -> Message {
        loop {
            if self.shared.end.is_cancelled() {
                return Err(self.shared.draining(self.cursor));
            }
            let event = match &mut self.source {
                Source::Replay(news) => {
                    let end = self.shared.end.cancelled();
                    let said = tokio::select! { said = news.recv() => said, () = end => continue };
                    self.hear(said)?
                }
                Source::Start | Source::Ring | Source::Over => self.look().await?,
            };
            if let Some(event) = event {
                self.cursor = event.sequence;
                if let Some(order) = event.order(&self.shared.damage) {
                    return Ok(pb::WatchOrdersResponse {
                        order: Some(order.clone()),
                        event: event.kind().into(),
                        resume_token: self.shared.tokens.resume(event.sequence),
                    });
                }
            }
        }
    }

    /// Handles a message of the replay.
    fn hear(&mut self, said: Option<ReplayEvent>) -> Result<Option<Arc<Event>>, Failure> {
        match said {
            Some(ReplayEvent::Event(event)) => Ok(Some(event)),
            Some(ReplayEvent::Passed(sequence)) => {
                self.cursor = sequence;
                Ok(None)
            }
            Some(ReplayEvent::Done) => {
                // The ring may have moved on while the client was slow: then another replay follows.
                self.source = Source::Start;
                Ok(None)
            }
            None => Err(self.slow()),
        }
    }

    /// Looks into the ring, and waits if there is nothing new.
    async fn look(&mut self) -> Result<Option<Arc<Event>>, Failure> {
        let head = *self.head.borrow_and_update();
        match self.shared.ring.find(self.cursor, &self.whose) {
            RingRead::Event(event) => {
                self.source = Source::Ring;
                return Ok(Some(event));
            }
            RingRead::Nothing(upto) => {
                self.source = Source::Ring;
                self.cursor = upto;
            }
            RingRead::Gone if matches!(self.source, Source::Ring) => return Err(self.slow()),
            RingRead::Gone => {
                let shares = self.place.hold.as_ref().map(|hold| hold.shares());
                let place = WatchPermit::take(&self.shared.replays, REPLAYS, shares).map_err(|full| {
                    refused(full, "watches that read the history")
                        .with("resume_token", self.shared.tokens.resume(self.cursor))
                })?;
                let news = replay::start(Arc::clone(&self.shared), self.whose.clone(), self.cursor, place);
                self.source = Source::Replay(news);
                return Ok(None);
            }
        }
        if self.cursor < head {
            tokio::task::yield_now().await;
            return Ok(None);
        }
        let end = self.shared.end.cancelled();
        tokio::select! {
            // An error means that the ring is gone, and with it the feed.
            gone = self.head.changed() => gone.map_err(|_| self.shared.draining(self.cursor))?,
            () = end => {}
        }
        Ok(None)
    }

    fn slow(&self) -> Failure {
        self.shared.slow.increment();
        let message = "the client reads changes more slowly than they arrive; resume with the resume_token";
        self.shared.ended(OrderReason::SlowWatcher, message, self.cursor)
    }
}
