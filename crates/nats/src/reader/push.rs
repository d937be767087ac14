//! A reader to which the server sends entries, by the library's ordered consumer. Hands over what arrives, holes included:
//! a consumer that a purge overtook skips entries without an error. It ends with its consumer; the caller opens another.

use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::position::{Position, position, sequence};
use crate::Connection;

/// How long the server may take to create the consumer.
const LIMIT: Duration = Duration::from_secs(5);

/// A reader to which the server sends entries.
pub struct PushReader {
    messages: Ordered,
    next: u64,
}

impl PushReader {
    /// Reads the entries of a stream after a sequence, by a new consumer.
    ///
    /// # Errors
    ///
    /// The consumer was not created.
    pub async fn open(link: &Connection, stream: &str, after: u64) -> Result<PushReader, async_nats::Error> {
        let client = link.client();
        let stream = jetstream::new(client.clone()).get_stream_no_info(stream).await?;
        let next = after + 1;
        let config = OrderedConfig {
            deliver_subject: client.new_inbox(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: next },
            ..OrderedConfig::default()
        };
        let consumer = timeout(LIMIT, stream.create_consumer(config)).await??;
        Ok(PushReader { messages: consumer.messages().await?, next })
    }

    /// The next entry with its sequence; none if the consumer has ended. The sequence is larger than that of the entry
    /// before, by more than one if entries are missing.
    ///
    /// # Errors
    ///
    /// The consumer failed, or went back.
    pub async fn next(&mut self) -> Result<Option<(u64, Message)>, async_nats::Error> {
        let Some(message) = self.messages.next().await else { return Ok(None) };
        let message = message?.message;
        let sequence = sequence(&message)?;
        match position(self.next, sequence) {
            // The library recreates a consumer that has delivered nothing from the stream's beginning.
            Position::Old => Err(format!("the consumer went back to {sequence}").into()),
            Position::Next | Position::Hole => {
                self.next = sequence + 1;
                Ok(Some((sequence, message)))
            }
        }
    }
}
