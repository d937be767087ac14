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
        self.publish_to(subject.clone(), inbox, headers, payload).await?;
        Ok(ManyReplies { replies, subject, outage })
    }
}

impl ManyReplies {
    /// Waits for the next reply. Cancel-safe. The caller keeps the deadline.
    ///
    /// # Errors
    ///
    /// [`RequestError::NoResponders`] and [`RequestError::NotPermitted`]: the request was not delivered.
    /// [`RequestError::Lost`]: the connection was lost, and replies with it, also those that came after it is back.
    pub async fn next(&mut self) -> Result<Message, RequestError> {
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
    /// Goes on after [`RequestError::Lost`]: the subscription comes back with the connection, without what came meanwhile.
    pub fn resume(&mut self) {
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
