//! Subscriptions: which ones may miss nothing without a word, and what ends them. Must not depend on how messages come.

use std::collections::HashMap;

use async_nats::{Event, ServerError, Subject};
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::permissions::PermissionViolation;

/// Why a subscription has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// Not connected; nothing was subscribed to.
    #[error("not connected to NATS")]
    Disconnected,
    /// The connection was lost, and what was published meanwhile with it.
    #[error("the connection to NATS was lost, and what was published meanwhile with it")]
    Lost,
    /// Permissions violation: our user may not subscribe to the subject.
    #[error("permissions violation: NATS does not permit us to subscribe to the subject")]
    NotPermitted,
    /// Messages of this connection were dropped, because this process is a slow consumer.
    #[error("messages were dropped: this process is a slow consumer of NATS")]
    Dropped,
}

/// The subscriptions of one connection, by number.
#[derive(Default)]
pub(crate) struct LiveSubscriptions {
    held: Mutex<HashMap<u64, Held, RandomState>>,
}

struct Held {
    subject: Subject,
    end: oneshot::Sender<SubscriptionError>,
}

impl LiveSubscriptions {
    /// Adds a subscription to this subject under this number.
    pub(crate) fn hold(&self, number: u64, subject: Subject) -> oneshot::Receiver<SubscriptionError> {
        let (end, ended) = oneshot::channel();
        self.held.lock().insert(number, Held { subject, end });
        ended
    }

    /// Removes a subscription.
    pub(crate) fn forget(&self, number: u64) {
        self.held.lock().remove(&number);
    }

    /// Ends the subscriptions of which messages may be missing after this connection event.
    pub(crate) fn hear(&self, event: &Event) {
        match event {
            Event::Disconnected => self.end(|_| true, SubscriptionError::Lost),
            // The event has the library's number of the subscription, which nobody else knows: it may be any of them.
            Event::SlowConsumer(_) => self.end(|_| true, SubscriptionError::Dropped),
            Event::ServerError(ServerError::Other(text)) => match PermissionViolation::read(text) {
                Some(denied) if !denied.publish => {
                    self.end(|subject| subject.as_str() == denied.subject, SubscriptionError::NotPermitted);
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn end(&self, which: impl Fn(&Subject) -> bool, error: SubscriptionError) {
        let ended: Vec<Held> =
            self.held.lock().extract_if(|_, held| which(&held.subject)).map(|(_, held)| held).collect();
        for held in ended {
            // An error means that nobody listens any more.
            let _ = held.end.send(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(live: &LiveSubscriptions) -> [oneshot::Receiver<SubscriptionError>; 2] {
        [live.hold(1, "a.b".into()), live.hold(2, "a.c".into())]
    }

    #[test]
    fn a_violation_ends_the_subscriptions_to_its_subject_and_no_others() {
        let live = LiveSubscriptions::default();
        let [mut ended, mut waits] = held(&live);
        for act in ["Publish", "Subscription"] {
            let text = format!("Permissions Violation for {act} to \"a.b\"");
            live.hear(&Event::ServerError(ServerError::Other(text)));
            assert_eq!(ended.try_recv().ok(), (act != "Publish").then_some(SubscriptionError::NotPermitted));
        }
        assert!(waits.try_recv().is_err());
    }

    #[test]
    fn whatever_may_have_lost_messages_ends_them_all() {
        for (event, error) in [
            (Event::Disconnected, SubscriptionError::Lost),
            (Event::SlowConsumer(7), SubscriptionError::Dropped),
        ] {
            let live = LiveSubscriptions::default();
            let mut ended = held(&live);
            live.hear(&Event::Connected);
            assert!(ended.iter_mut().all(|ended| ended.try_recv().is_err()));
            live.hear(&event);
            assert!(ended.iter_mut().all(|ended| ended.try_recv() == Ok(error)));
        }
    }
}
