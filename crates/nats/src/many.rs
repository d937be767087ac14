//! Requests with many replies, each with an inbox of its own. Must not decide when they end, nor hold more of them than
//! the client library does.

use async_nats::{HeaderMap, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::oneshot;

use crate::mux::Connection;
use crate::pending::{End, RequestError};

/// The replies to one request. Dropping it ends the subscription.
pub struct ManyReplies {
    replies: Subscriber,
    subject: Subject,
    outage: Outage,
    /// How often messages of the connection had been dropped when it began: which of its subscriptions they belong to is not
    /// known.
    dropped: u64,
}

/// Notices that the connection was lost, or that the request was not permitted.
struct Outage {
    connection: Connection,
    number: u64,
    end: oneshot::Receiver<End>,
}

impl Connection {
    /// Sends a request to which any number of replies may come.
    ///
    /// # Errors
    ///
    /// As for [`Connection::exchange`], before anything was sent.
    pub async fn request_many(
        &self,
        subject: impl Into<Subject>,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<ManyReplies, RequestError> {
        if !self.connected() {
            return Err(RequestError::Disconnected);
        }
        let (client, subject) = (self.client(), subject.into());
        let inbox = Subject::from(client.new_inbox());
        let replies = client.subscribe(inbox.clone()).await.map_err(|_| RequestError::Disconnected)?;
        let outage = Outage::watch(self.clone(), subject.clone());
        let dropped = self.dropped();
        self.publish_to(subject.clone(), inbox, headers, payload).await?;
        Ok(ManyReplies { replies, subject, outage, dropped })
    }
}

impl ManyReplies {
    /// Waits for the next reply. Cancel-safe. The caller keeps the deadline.
    ///
    /// # Errors
    ///
    /// [`RequestError::NoResponders`] and [`RequestError::NotPermitted`]: the request was not delivered.
    /// [`RequestError::Lost`]: the connection was lost, and replies with it, also those that came after it is back.
    /// [`RequestError::Dropped`]: some are missing, and none of those behind them is given.
    pub async fn next(&mut self) -> Result<Message, RequestError> {
        // What follows those that are missing may wait behind what does not.
        if self.outage.connection.dropped() != self.dropped {
            return Err(RequestError::Dropped);
        }
        tokio::select! {
            biased;
            reply = self.replies.next() => match reply {
                Some(reply) if reply.status == Some(StatusCode::NO_RESPONDERS) => Err(RequestError::NoResponders),
                Some(reply) => Ok(reply),
                None => Err(RequestError::Lost),
            },
            end = &mut self.outage.end => match end {
                Ok(Err(error)) => Err(error),
                // Nobody else answers under this number.
                Ok(Ok(_)) | Err(_) => Err(RequestError::Lost),
            },
        }
    }
}

impl ManyReplies {
    /// Goes on after [`RequestError::Lost`], when the subscription is back with the connection, and after
    /// [`RequestError::Dropped`]; without what came meanwhile.
    pub fn resume(&mut self) {
        self.dropped = self.outage.connection.dropped();
        self.outage = Outage::watch(self.outage.connection.clone(), self.subject.clone());
    }
}

impl Outage {
    fn watch(connection: Connection, subject: Subject) -> Outage {
        let (number, end) = connection.hold(subject);
        Outage { connection, number, end }
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        self.connection.forget(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, SubscriptionError};

    /// More than the client library holds of one subscription.
    const FLOOD: usize = 70_000;

    /// Publishes so many numbers on a subject.
    async fn flood(client: &async_nats::Client, subject: &Subject) {
        for number in 0..FLOOD {
            client.publish(subject.clone(), number.to_string().into()).await.unwrap();
        }
    }

    /// Returns when messages of this connection were dropped.
    async fn dropped(link: &Connection) {
        let waits = async {
            while link.dropped() == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), waits).await.expect("some are dropped");
    }

    async fn setup() -> (local_nats::Server, Connection, async_nats::Client) {
        let server = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
        let link = Connection::connect(&Options::at(server.url()), "slow").await.unwrap();
        let service = async_nats::connect(server.url()).await.unwrap();
        (server, link, service)
    }

    #[tokio::test]
    async fn nothing_is_given_behind_replies_that_were_dropped() {
        let (_server, link, service) = setup().await;
        let mut requests = service.subscribe("many").await.unwrap();
        let ready = service.request("$JS.API.INFO", Bytes::new()).await;
        assert!(ready.is_ok());
        let mut replies = link.request_many("many", HeaderMap::new(), Bytes::new()).await.unwrap();
        let inbox = requests.next().await.unwrap().reply.unwrap();
        flood(&service, &inbox).await;
        dropped(&link).await;
        assert!(matches!(replies.next().await, Err(RequestError::Dropped)));
        replies.resume();
        assert_eq!(replies.next().await.unwrap().payload, "0", "what came before is still there");
    }

    #[tokio::test]
    async fn a_subscription_gives_nothing_behind_messages_that_were_dropped() {
        let (_server, link, service) = setup().await;
        let mut listens = link.listen("news").await.unwrap();
        flood(&service, &"news".into()).await;
        dropped(&link).await;
        let mut heard = Vec::new();
        assert_eq!(listens.fill(&mut heard).await.unwrap_err(), SubscriptionError::Dropped);
        assert!(heard.is_empty());
    }
}
