//! The messages of one stream between the service and the client: a bounded queue, and what all streams of the process
//! may hold. Must not know what the messages are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use wire::{Delivered, Failure, Reason};

/// The most messages that wait for the client of one stream.
pub(crate) const MESSAGES: usize = 1_024;
/// The most bytes that wait for the client of one stream.
const BYTES: usize = 8 << 20;
/// What the client of one stream may leave waiting, whatever waits for others, in bytes.
const LEAST: usize = 64 << 10;
/// The most bytes of all streams.
const ALL: usize = 256 << 20;

/// What waits for the clients of all streams, in bytes.
#[derive(Debug, Default)]
pub struct StreamBytes(AtomicUsize);

/// A message that waits.
struct Waiting {
    payload: Bytes,
    charge: Charge,
}

/// The bytes of a message, until it is dropped.
struct Charge {
    bytes: usize,
    mine: Arc<StreamBytes>,
    all: Arc<StreamBytes>,
}

/// Takes messages in.
pub(crate) struct Inflow {
    queue: Sender<Waiting>,
    end: Arc<Mutex<Option<Failure>>>,
    mine: Arc<StreamBytes>,
    all: Arc<StreamBytes>,
}

/// Gives messages out.
pub(crate) struct Outflow {
    queue: Receiver<Waiting>,
    end: Arc<Mutex<Option<Failure>>>,
}

/// A queue within the limits of one stream, and of all.
pub(crate) fn flow(all: Arc<StreamBytes>) -> (Inflow, Outflow) {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let end = Arc::new(Mutex::new(None));
    let inflow = Inflow { queue: sender, end: end.clone(), mine: Arc::default(), all };
    (inflow, Outflow { queue: receiver, end })
}

impl StreamBytes {
    /// What waits, in bytes.
    pub fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize, most: usize) -> bool {
        let add = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= most);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.mine.give(self.bytes);
        self.all.give(self.bytes);
    }
}

impl Inflow {
    /// Takes a message in, if there is room.
    pub(crate) fn put(&self, payload: Bytes) -> Result<(), Failure> {
        let bytes = payload.len();
        if !self.mine.take(bytes, BYTES) {
            return Err(slow(&format!("{BYTES} bytes wait for the client")));
        }
        // A client that reads is not harmed by others that do not.
        let most = if self.mine.held() <= LEAST { usize::MAX } else { ALL };
        if !self.all.take(bytes, most) {
            self.mine.give(bytes);
            return Err(slow(&format!("{ALL} bytes wait for the clients of all streams")));
        }
        let charge = Charge { bytes, mine: self.mine.clone(), all: self.all.clone() };
        match self.queue.try_send(Waiting { payload, charge }) {
            // A client that has gone needs nothing.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => Err(slow(&format!("{MESSAGES} messages wait for the client"))),
        }
    }

    /// Ends the stream, behind what waits.
    pub(crate) fn finish(self, end: Result<(), Failure>) {
        *self.end.lock() = end.err();
    }
}

impl Outflow {
    /// The next message; none: the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.queue.recv().await {
            Some(Waiting { payload, charge: _charge }) => Ok(Some(payload)),
            None => self.end.lock().take().map_or(Ok(None), Err),
        }
    }
}

fn slow(why: &str) -> Failure {
    Failure::new(Reason::SlowClient, format!("the stream ended because {why}: read faster"))
        .delivered(Delivered::Yes)
}
