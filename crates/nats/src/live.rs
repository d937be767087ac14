//! Subscriptions that end when a message may be missing: the connection was lost, or the client library dropped some. Must
//! not decide what becomes of those who listen.

use async_nats::{Message, Subject, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::oneshot;

use crate::mux::Connection;
use crate::pending::RequestError;
use crate::subscriptions::SubscriptionError;

/// The most messages that one call of `fill` returns.
const FILL: usize = 512;

/// What is published on a subject. Dropping it ends the subscription.
pub struct LiveSubscription {
    messages: Subscriber,
    watch: Watch,
}

/// Learns of the end of a subscription.
struct Watch {
    connection: Connection,
    number: u64,
    end: oneshot::Receiver<SubscriptionError>,
}

impl Connection {
    /// Subscribes to a subject, and returns when the server has processed that: what is published from then on comes.
    /// The caller keeps the deadline.
    ///
    /// # Errors
    ///
    /// There is no connection, it was lost meanwhile, or the server does not permit the subscription.
    pub async fn listen(&self, subject: impl Into<Subject>) -> Result<LiveSubscription, SubscriptionError> {
        if !self.connected() {
            return Err(SubscriptionError::Disconnected);
        }
        let subject = subject.into();
        let number = self.number();
        let end = self.live().hold(number, subject.clone());
        let mut watch = Watch { connection: self.clone(), number, end };
        let messages = self.client().subscribe(subject).await.map_err(|_| SubscriptionError::Disconnected)?;
        let processed = self.processed().await;
        // What the server says of the subscription comes before.
        if let Ok(error) = watch.end.try_recv() {
            return Err(error);
        }
        processed.map_err(|error| match error {
            RequestError::Disconnected => SubscriptionError::Disconnected,
            RequestError::NotPermitted => SubscriptionError::NotPermitted,
            _ => SubscriptionError::Lost,
        })?;
        Ok(LiveSubscription { messages, watch })
    }
}

impl LiveSubscription {
    /// Waits for messages, and adds those that have arrived. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Messages may be missing behind those that came before. None behind them is given. It stays ended.
    pub async fn fill(&mut self, messages: &mut Vec<Message>) -> Result<(), SubscriptionError> {
        let first = tokio::select! {
            biased;
            // Before the messages: what follows those that are missing may be among them.
            end = &mut self.watch.end => return Err(end.unwrap_or(SubscriptionError::Lost)),
            first = self.messages.next() => first.ok_or(SubscriptionError::Lost)?,
        };
        messages.push(first);
        for _ in 1..FILL {
            let Some(Some(message)) = self.messages.next().now_or_never() else { break };
            messages.push(message);
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connection.live().forget(self.number);
    }
}
