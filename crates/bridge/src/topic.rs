//! Topics: each is one reader of a subject and the messages that it has read, shared by all who watch it, and ended when
//! the last of them leaves. Must not know how a reader reads.

mod ring;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::{Failure, Reason};

use ring::{Ring, RingBytes};

pub(crate) use ring::RingRead;

/// The most watchers of a thread that read what was before the messages in memory, each with a consumer of its own.
const CATCHING_UP: usize = 16;

/// What a topic is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The path of the rpc, which decides how messages are read.
    pub(crate) path: String,
    /// Which route of this path: another contract may read other messages, or another stream.
    pub(crate) route: usize,
    /// The subject.
    pub(crate) subject: String,
}

/// The topics of one thread.
#[derive(Debug)]
pub(crate) struct Topics {
    open: Mutex<HashMap<Key, Weak<Topic>, RandomState>>,
    bytes: Arc<RingBytes>,
    /// Permits of those who catch up.
    pub(crate) catching_up: Arc<Semaphore>,
}

/// A topic. Its reader ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Topic {
    key: Key,
    topics: Weak<Topics>,
    feed: Arc<Feed>,
    _stop: DropGuard,
}

/// What the reader of a topic and its watchers share.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) ring: Ring,
    signal: watch::Sender<Signal>,
    /// Cancelled when nobody watches any more.
    pub(crate) stop: CancellationToken,
}

/// Where a reader is.
#[derive(Debug, Clone)]
pub(crate) struct Signal {
    /// The sequence of the last message.
    last: u64,
    pub(crate) phase: Phase,
}

/// What a reader does.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// It has not begun.
    Starting,
    /// It reads.
    Open(Begin),
    /// It has ended, behind the messages in the ring.
    Ended(Failure),
}

/// Where a reader began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begin {
    /// What was published afterwards has a sequence above this.
    pub(crate) after: u64,
    /// Which stream of this name it reads; empty without one.
    pub(crate) identity: Arc<str>,
}

impl Default for Topics {
    fn default() -> Topics {
        let catching_up = Arc::new(Semaphore::new(CATCHING_UP));
        Topics { open: Mutex::default(), bytes: Arc::default(), catching_up }
    }
}

impl Topics {
    /// The topic of this key; a new one, whose reader `start` begins, if there is none that reads.
    pub(crate) fn join(self: &Arc<Self>, key: Key, start: impl FnOnce(Arc<Feed>)) -> Arc<Topic> {
        // Dropped behind the lock, which its end takes.
        let _ended;
        let mut open = self.open.lock();
        match open.get(&key).and_then(Weak::upgrade) {
            Some(topic) if !topic.feed.has_ended() => return topic,
            ended => _ended = ended,
        }
        let feed = Arc::new(Feed::new(Ring::new(self.bytes.clone())));
        let topic = Arc::new(Topic {
            key: key.clone(),
            topics: Arc::downgrade(self),
            _stop: feed.stop.clone().drop_guard(),
            feed: feed.clone(),
        });
        open.insert(key, Arc::downgrade(&topic));
        start(feed);
        topic
    }
}

impl Topic {
    /// What its reader has read.
    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let Some(topics) = self.topics.upgrade() else { return };
        let mut open = topics.open.lock();
        // Another one may have taken its place.
        if open.get(&self.key).is_some_and(|topic| topic.strong_count() == 0) {
            open.remove(&self.key);
        }
    }
}

impl Feed {
    fn new(ring: Ring) -> Feed {
        let signal = watch::Sender::new(Signal { last: 0, phase: Phase::Starting });
        Feed { ring, signal, stop: CancellationToken::new() }
    }

    /// The reader has begun.
    pub(crate) fn begin(&self, begin: Begin) {
        self.signal.send_modify(|signal| signal.phase = Phase::Open(begin));
    }

    /// Adds messages, by ascending sequence, and wakes the watchers once.
    pub(crate) fn push(&self, messages: Vec<(u64, Bytes)>) {
        let Some((last, _)) = messages.last() else { return };
        let last = *last;
        self.ring.push(messages);
        self.signal.send_modify(|signal| signal.last = last);
    }

    /// The reader has ended.
    pub(crate) fn end(&self, failure: Failure) {
        self.signal.send_modify(|signal| signal.phase = Phase::Ended(failure));
    }

    /// The sequence of the last message, 0 if there is none.
    pub(crate) fn last(&self) -> u64 {
        self.signal.borrow().last
    }

    /// Learns of messages and of the end.
    pub(crate) fn signal(&self) -> watch::Receiver<Signal> {
        self.signal.subscribe()
    }

    fn has_ended(&self) -> bool {
        matches!(self.signal.borrow().phase, Phase::Ended(_))
    }

    /// Waits until the reader has begun. The caller keeps the deadline.
    pub(crate) async fn opened(&self) -> Result<Begin, Failure> {
        let mut signal = self.signal.subscribe();
        let begun = signal.wait_for(|signal| !matches!(signal.phase, Phase::Starting)).await;
        match begun.map(|signal| signal.phase.clone()) {
            Ok(Phase::Open(begin)) => Ok(begin),
            Ok(Phase::Ended(failure)) => Err(failure),
            Ok(Phase::Starting) | Err(_) => Err(Failure::new(Reason::Internal, "the reader is gone")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(subject: &str) -> Key {
        Key { path: "/a.B/C".to_owned(), route: 0, subject: subject.to_owned() }
    }

    #[test]
    fn one_subject_has_one_reader_until_the_last_watcher_leaves() {
        let topics = Arc::new(Topics::default());
        let mut feeds = Vec::new();
        let one = topics.join(key("a"), |feed| feeds.push(feed));
        let two = topics.join(key("a"), |feed| feeds.push(feed));
        let other = topics.join(key("b"), |feed| feeds.push(feed));
        assert_eq!((feeds.len(), topics.open.lock().len()), (2, 2));
        drop(one);
        assert!(!feeds[0].stop.is_cancelled());
        drop(two);
        assert!(feeds[0].stop.is_cancelled() && !feeds[1].stop.is_cancelled());
        drop(other);
        assert!(topics.open.lock().is_empty());
    }

    #[tokio::test]
    async fn a_reader_that_has_ended_is_replaced_and_its_watchers_keep_what_it_read() {
        let topics = Arc::new(Topics::default());
        let mut feeds = Vec::new();
        let ended = topics.join(key("a"), |feed| feeds.push(feed));
        feeds[0].begin(Begin { after: 0, identity: "".into() });
        feeds[0].push(vec![(1, Bytes::from_static(b"x"))]);
        feeds[0].end(Failure::new(Reason::NatsDisconnected, "lost"));
        let next = topics.join(key("a"), |feed| feeds.push(feed));
        assert!(!Arc::ptr_eq(&ended, &next));
        assert!(ended.feed().opened().await.unwrap_err().is(Reason::NatsDisconnected));
        assert!(ended.feed().ring.follows(0) && ended.feed().last() == 1);
        drop(ended);
        let again = topics.join(key("a"), |feed| feeds.push(feed));
        assert!(Arc::ptr_eq(&again, &next) && feeds.len() == 2);
    }
}
