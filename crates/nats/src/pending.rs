//! Pending requests: which ones wait for a reply, and what ends their wait. Must not depend on how they are sent.

use std::collections::HashMap;

use async_nats::{Event, Message, Server, ServerError, Subject};
use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use telemetry::Counter;
use tokio::sync::{oneshot, watch};

use crate::permissions::PermissionViolation;
use crate::subscriptions::LiveSubscriptions;

/// What ends a wait before its deadline.
pub(crate) type End = Result<Message, RequestError>;

/// Why a request got no reply.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not connected; nothing was sent.
    #[error("not connected to NATS")]
    Disconnected,
    /// No responders: nobody subscribes to the subject; nothing was delivered.
    #[error("no responders: nobody subscribes to the subject")]
    NoResponders,
    /// No reply by the deadline; it may have been delivered.
    #[error("no reply by the deadline")]
    Timeout,
    /// The connection was lost while waiting for the reply; the request may have been delivered.
    #[error("the connection to NATS was lost before the reply")]
    Lost,
    /// Of several replies some were dropped, because this process is a slow consumer.
    #[error("replies were dropped: this process is a slow consumer of NATS")]
    Dropped,
    /// Permissions violation: our user may not publish to the subject; nothing was delivered.
    #[error("permissions violation: NATS does not permit us to publish to the subject")]
    NotPermitted,
    /// Larger than the server's max_payload; nothing was sent.
    #[error("{size} bytes exceed the limit of {limit}")]
    TooLarge {
        /// Bytes, headers included.
        size: usize,
        /// The server's max_payload.
        limit: usize,
    },
    /// The client library refused to send it: a bug of ours.
    #[error("cannot be sent: {0}")]
    Unsendable(#[source] async_nats::PublishError),
}

/// The pending requests of one connection.
#[derive(Default)]
pub(crate) struct Pending {
    held: Mutex<HashMap<u64, PendingRequest, RandomState>>,
    /// Subscriptions that end with the connection.
    pub(crate) live: LiveSubscriptions,
    pub(crate) connects: Counter,
    pub(crate) slow: Counter,
    /// The last permissions violation.
    pub(crate) denied: watch::Sender<Option<PermissionViolation>>,
    /// Why the last reconnect attempts failed.
    refusal: Mutex<Refusal>,
}

/// Why there is no connection.
#[derive(Default)]
struct Refusal {
    why: Option<String>,
    /// Each server's count of failures when the connection was lost: older errors are outdated.
    before: Option<Vec<usize>>,
}

struct PendingRequest {
    subject: Subject,
    end: oneshot::Sender<End>,
}

impl Pending {
    /// Adds a request to this subject under this number.
    pub(crate) fn hold(&self, number: u64, subject: Subject) -> oneshot::Receiver<End> {
        let (end, ended) = oneshot::channel();
        self.held().insert(number, PendingRequest { subject, end });
        ended
    }

    /// Removes a request.
    pub(crate) fn forget(&self, number: u64) {
        self.held().remove(&number);
    }

    /// Delivers a request's reply.
    pub(crate) fn answer(&self, number: u64, message: Message) {
        if let Some(held) = self.held().remove(&number) {
            // An error means that the request ended meanwhile.
            let _ = held.end.send(Ok(message));
        }
    }

    /// Ends the requests that can no longer get a reply after this connection event.
    pub(crate) fn hear(&self, event: &Event) {
        self.live.hear(event);
        match event {
            Event::Connected => {
                self.connects.increment();
                *self.refusal() = Refusal::default();
            }
            Event::SlowConsumer(_) => self.slow.increment(),
            // The request may have arrived, but its reply will not: the server drops what it could not deliver.
            Event::Disconnected => self.end(|_| true, || RequestError::Lost),
            Event::ServerError(ServerError::Other(text)) => {
                let Some(denied) = PermissionViolation::read(text) else { return };
                // Store the violation first, so that the ended requests can report it.
                self.denied.send_replace(Some(denied.clone()));
                if denied.publish {
                    self.end(|subject| subject.as_str() == denied.subject, || RequestError::NotPermitted);
                }
            }
            _ => {}
        }
    }

    /// Records the results of the last connection attempts.
    pub(crate) fn refused(&self, servers: &[Server]) {
        let mut refusal = self.refusal();
        let Refusal { why, before } = &mut *refusal;
        let before =
            before.get_or_insert_with(|| servers.iter().map(|server| server.failed_attempts).collect());
        let failed = servers.iter().enumerate().filter(|(place, server)| {
            before.get(*place).is_none_or(|before| server.failed_attempts > *before)
        });
        let errors: Vec<&String> = failed.filter_map(|(_, server)| server.last_error.as_ref()).collect();
        // An authorization violation at one server says more than another server being unreachable.
        let told = errors.iter().find(|error| error.contains("authorization")).or(errors.first());
        if let Some(told) = told {
            *why = Some((*told).clone());
        }
    }

    /// Why reconnecting failed, if known.
    pub(crate) fn why(&self) -> Option<String> {
        self.refusal().why.clone()
    }

    fn refusal(&self) -> MutexGuard<'_, Refusal> {
        self.refusal.lock()
    }

    /// The number of pending requests.
    pub(crate) fn count(&self) -> usize {
        self.held().len()
    }

    fn end(&self, which: impl Fn(&Subject) -> bool, trouble: impl Fn() -> RequestError) {
        let ended: Vec<PendingRequest> =
            self.held().extract_if(|_, held| which(&held.subject)).map(|(_, held)| held).collect();
        for held in ended {
            let _ = held.end.send(Err(trouble()));
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u64, PendingRequest, RandomState>> {
        self.held.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_ends_the_requests_to_its_subject_and_no_others() {
        let waiting = Pending::default();
        let mut ended = waiting.hold(1, "a.b".into());
        let mut waits = waiting.hold(2, "a.c".into());
        let text = "Permissions Violation for Publish to \"a.b\"".to_owned();
        waiting.hear(&Event::ServerError(ServerError::Other(text)));
        assert!(matches!(ended.try_recv(), Ok(Err(RequestError::NotPermitted))));
        assert!(waits.try_recv().is_err());
        assert_eq!(waiting.count(), 1);
    }

    #[test]
    fn a_lost_connection_ends_them_all() {
        let waiting = Pending::default();
        let mut ended = [waiting.hold(1, "a".into()), waiting.hold(2, "b".into())];
        waiting.hear(&Event::Disconnected);
        assert!(ended.iter_mut().all(|ended| matches!(ended.try_recv(), Ok(Err(RequestError::Lost)))));
        assert_eq!(waiting.count(), 0);
    }

    #[test]
    fn other_events_end_nothing() {
        let waiting = Pending::default();
        let mut waits = waiting.hold(1, "a".into());
        waiting.hear(&Event::Connected);
        waiting.hear(&Event::ServerError(ServerError::Other("stale connection".to_owned())));
        assert!(waits.try_recv().is_err());
    }
}
