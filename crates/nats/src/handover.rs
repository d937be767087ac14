//! Messages without a reply, and how it is known that a server has them. Must not repeat one.

use async_nats::{HeaderMap, StatusCode, Subject};
use bytes::Bytes;

use crate::mux::{Connection, PendingGuard, unsent};
use crate::pending::RequestError;

impl Connection {
    /// Publishes a message without a reply, and returns when a server has it. With `require_subscriber` somebody has to
    /// subscribe to the subject. The caller keeps the deadline.
    ///
    /// A server handles what a connection sends in sequence: the message has arrived once an empty one behind it, to the
    /// own inbox, has come back. The user needs the right to publish there.
    ///
    /// # Errors
    ///
    /// As for [`Connection::exchange`]; [`RequestError::NoResponders`]: nobody subscribes.
    pub async fn hand_over(
        &self,
        subject: impl Into<Subject>,
        headers: HeaderMap,
        payload: Bytes,
        require_subscriber: bool,
    ) -> Result<(), RequestError> {
        if !self.connected() {
            return Err(RequestError::Disconnected);
        }
        let (size, limit) = (payload.len(), self.shared.client.max_payload());
        let _turn = self.shared.turns.acquire().await;
        let (client, subject) = (&self.shared.client, subject.into());
        let mut ticket = PendingGuard::take(&self.shared, subject.clone());
        let sent = match require_subscriber {
            true => self.publish_to(subject, self.shared.reply(ticket.number), headers, payload).await,
            false => {
                let sent = client.publish_with_headers(subject, headers, payload).await;
                sent.map_err(|error| unsent(error, size, limit))
            }
        };
        sent?;
        // The server reports what it does not permit beside the messages, and few reports can wait for their reader.
        let came = self.processed().await;
        // What the server says of the message, that it is not permitted or has no subscriber, comes before the echo.
        match ticket.now() {
            Some(Ok(told)) if told.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(RequestError::NoResponders)
            }
            Some(Err(error)) => Err(error),
            _ => match came {
                // What is said of the echo comes behind the message: the server has that.
                Ok(()) | Err(RequestError::NotPermitted) => Ok(()),
                Err(RequestError::Timeout) => Err(RequestError::Timeout),
                Err(_) => Err(RequestError::Lost),
            },
        }
    }

    /// Returns when the server has processed what was sent before: an empty message behind it, to the own inbox, has
    /// come back. The caller keeps the deadline.
    pub(crate) async fn processed(&self) -> Result<(), RequestError> {
        let client = &self.shared.client;
        let mut echo = PendingGuard::echo(&self.shared);
        let sent = client.publish(self.shared.reply(echo.number), Bytes::new()).await;
        sent.map_err(|error| unsent(error, 0, client.max_payload()))?;
        echo.wait().await.map(|_| ())
    }
}
