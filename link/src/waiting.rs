//! Requests that wait for a reply: who they are, and what ends their wait. Must never know how anything is sent.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::{Event, Message, Server, ServerError, Subject};
use foldhash::fast::RandomState;
use telemetry::Count;
use tokio::sync::{oneshot, watch};

use crate::denied::Denied;
use crate::inbox::Trouble;

/// What ends a wait before its deadline.
pub(crate) type End = Result<Message, Trouble>;

/// The requests of one connection that wait.
#[derive(Default)]
pub(crate) struct Waiting {
    held: Mutex<HashMap<u64, Held, RandomState>>,
    pub(crate) connects: Count,
    pub(crate) slow: Count,
    /// What the server did not permit last.
    pub(crate) denied: watch::Sender<Option<Denied>>,
    /// What kept us from connecting again.
    refusal: Mutex<Refusal>,
}

/// Why there is no connection.
#[derive(Default)]
struct Refusal {
    why: Option<String>,
    /// How often each server had failed when it was lost: what it said before is of another day.
    before: Option<Vec<usize>>,
}

struct Held {
    subject: Subject,
    end: oneshot::Sender<End>,
}

impl Waiting {
    /// A request to this subject waits under this number.
    pub(crate) fn hold(&self, number: u64, subject: Subject) -> oneshot::Receiver<End> {
        let (end, ended) = oneshot::channel();
        self.held().insert(number, Held { subject, end });
        ended
    }

    /// It waits no longer.
    pub(crate) fn forget(&self, number: u64) {
        self.held().remove(&number);
    }

    /// Its reply came.
    pub(crate) fn answer(&self, number: u64, message: Message) {
        if let Some(held) = self.held().remove(&number) {
            // An error says that the request ended meanwhile.
            let _ = held.end.send(Ok(message));
        }
    }

    /// Ends the waits that an event of the connection makes vain.
    pub(crate) fn hear(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connects.one();
                *self.refusal() = Refusal::default();
            }
            Event::SlowConsumer(_) => self.slow.one(),
            // What was sent may have arrived. The reply does not: the server forgets what it could not deliver.
            Event::Disconnected => self.end(|_| true, || Trouble::Lost),
            Event::ServerError(ServerError::Other(text)) => {
                let Some(denied) = Denied::read(text) else { return };
                // First what it was, so that whoever's wait ends can say it.
                self.denied.send_replace(Some(denied.clone()));
                if denied.publish {
                    self.end(|subject| subject.as_str() == denied.subject, || Trouble::NotPermitted);
                }
            }
            _ => {}
        }
    }

    /// Notes what became of the last attempts to connect.
    pub(crate) fn refused(&self, servers: &[Server]) {
        let mut refusal = self.refusal();
        let Refusal { why, before } = &mut *refusal;
        let before =
            before.get_or_insert_with(|| servers.iter().map(|server| server.failed_attempts).collect());
        let failed = servers.iter().enumerate().filter(|(place, server)| {
            before.get(*place).is_none_or(|before| server.failed_attempts > *before)
        });
        let errors: Vec<&String> = failed.filter_map(|(_, server)| server.last_error.as_ref()).collect();
        // That one server is away says less than that another does not know us.
        let told = errors.iter().find(|error| error.contains("authorization")).or(errors.first());
        if let Some(told) = told {
            *why = Some((*told).clone());
        }
    }

    /// What kept us from connecting again, as far as it is known.
    pub(crate) fn why(&self) -> Option<String> {
        self.refusal().why.clone()
    }

    fn refusal(&self) -> MutexGuard<'_, Refusal> {
        // Nothing panics while it is held.
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.held().len()
    }

    fn end(&self, which: impl Fn(&Subject) -> bool, trouble: impl Fn() -> Trouble) {
        let ended: Vec<Held> =
            self.held().extract_if(|_, held| which(&held.subject)).map(|(_, held)| held).collect();
        for held in ended {
            let _ = held.end.send(Err(trouble()));
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u64, Held, RandomState>> {
        // Nothing panics while it is held, so the map is whole whatever happened elsewhere.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_ends_the_requests_to_its_subject_and_no_others() {
        let waiting = Waiting::default();
        let mut ended = waiting.hold(1, "a.b".into());
        let mut waits = waiting.hold(2, "a.c".into());
        let text = "Permissions Violation for Publish to \"a.b\"".to_owned();
        waiting.hear(&Event::ServerError(ServerError::Other(text)));
        assert!(matches!(ended.try_recv(), Ok(Err(Trouble::NotPermitted))));
        assert!(waits.try_recv().is_err());
        assert_eq!(waiting.count(), 1);
    }

    #[test]
    fn a_lost_connection_ends_them_all() {
        let waiting = Waiting::default();
        let mut ended = [waiting.hold(1, "a".into()), waiting.hold(2, "b".into())];
        waiting.hear(&Event::Disconnected);
        assert!(ended.iter_mut().all(|ended| matches!(ended.try_recv(), Ok(Err(Trouble::Lost)))));
        assert_eq!(waiting.count(), 0);
    }

    #[test]
    fn other_events_end_nothing() {
        let waiting = Waiting::default();
        let mut waits = waiting.hold(1, "a".into());
        waiting.hear(&Event::Connected);
        waiting.hear(&Event::ServerError(ServerError::Other("stale connection".to_owned())));
        assert!(waits.try_recv().is_err());
    }
}
