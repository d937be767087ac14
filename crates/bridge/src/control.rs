//! What the gateway tells a service about a request that is under way: how many messages it may send, and that nobody
//! waits any more. Services that do not know these headers ignore them. Must not use the inbox, so that no service needs
//! rights on replies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use nats::Connection;
use nats::header::{number, put};
use tokio::time::timeout;
use uuid::Uuid;
use wire::header;

use crate::window::{FIRST, Window};

/// All subjects on which services are told about a request that is under way.
pub const CONTROL: &str = "gateway.control.>";
/// What they begin with.
const PREFIX: &str = "gateway.control";
/// How long a control message may wait for its place behind others that are sent.
pub(crate) const SEND: Duration = Duration::from_millis(500);

/// The control of one request. Dropped before the service has ended it, it tells so, if the route wants it.
pub(crate) struct Control {
    link: Connection,
    /// Unguessable: whoever knows it can stop the service's work.
    id: Uuid,
    cancels: bool,
    progress: Progress,
    window: Window,
}

/// How far a service is. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    ended: Arc<AtomicBool>,
    /// How many messages it may still send.
    credit: Arc<AtomicI64>,
}

impl Control {
    /// The control of a request. `cancels`: whether the service is told when nobody waits.
    pub(crate) fn new(link: Connection, cancels: bool) -> Control {
        let progress = Progress { ended: Arc::default(), credit: Arc::new(AtomicI64::new(FIRST)) };
        Control { link, id: Uuid::new_v4(), cancels, progress, window: Window::default() }
    }

    /// Names the subjects in the headers of the request. `streams`: many messages are expected.
    pub(crate) fn announce(&self, headers: &mut HeaderMap, streams: bool) {
        if streams {
            number(headers, header::STREAM_WINDOW, FIRST.unsigned_abs());
            put(headers, header::STREAM_CREDIT, self.subject("credit"));
        }
        if self.cancels {
            put(headers, header::REQUEST_CANCEL, self.subject("cancel"));
        }
    }

    /// How far the service is.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The client has taken a message of this size: grants more from time to time.
    pub(crate) async fn took(&mut self, bytes: usize) {
        self.window.took(bytes);
        self.grant().await;
    }

    /// Whether messages that the service waits for could not be granted yet.
    pub(crate) fn owes(&self) -> bool {
        self.window.more().is_some()
    }

    /// Grants what is owed.
    pub(crate) async fn grant(&mut self) {
        let Some(more) = self.window.more() else { return };
        let grant = self.link.client().publish(self.subject("credit"), more.to_string().into());
        // What cannot be sent now is granted later.
        if let Ok(Ok(())) = timeout(SEND, grant).await {
            self.window.grant(more);
            self.progress.credit.fetch_add(more, Ordering::Relaxed);
        }
    }

    fn subject(&self, what: &str) -> String {
        format!("{PREFIX}.{}.{what}", self.id.simple())
    }
}

impl Progress {
    /// The service has ended the request itself.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// The service has sent a message.
    pub(crate) fn spend(&self) {
        self.credit.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a service that counts its messages has to wait for the client.
    pub(crate) fn waits(&self) -> bool {
        self.credit.load(Ordering::Relaxed) <= 0
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if !self.cancels || self.progress.ended.load(Ordering::Relaxed) {
            return;
        }
        let (client, subject) = (self.link.client().clone(), self.subject("cancel"));
        tokio::spawn(async move {
            let _ = timeout(SEND, client.publish(subject, Bytes::new())).await;
        });
    }
}
