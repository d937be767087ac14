//! What JetStream says of our streams and consumers, for those who look after them. Must never be needed for an answer.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use telemetry::{Page, Source};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::inbox::Link;
use crate::store::{StoreError, ask, found};
use crate::streams::{DEAD_LETTERS, DISCARDED};

const MESSAGES: &str = "Messages in a stream; of DEAD_LETTERS those that nobody has discarded.";
/// The leader where there is no cluster: a server on its own leads all of its streams.
const ALONE: &str = "alone";

/// A stream, as its leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamState {
    /// Its name.
    pub name: &'static str,
    /// Messages in it; of dead letters those that nobody has discarded.
    pub messages: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// The last sequence.
    pub last: u64,
    /// The server that leads it; empty where there is none.
    pub leader: String,
    /// How many replicas it is to have.
    pub replicas: usize,
    /// How many are up to date, the leader among them.
    pub current: usize,
}

/// A consumer, as its leader sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumerState {
    /// Its stream.
    pub stream: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Messages that were not delivered yet.
    pub pending: u64,
    /// Messages that were delivered and are not acknowledged.
    pub unacknowledged: u64,
    /// Messages among these that were delivered more than once.
    pub redelivered: u64,
}

/// What was found at one moment.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// Those that could be read.
    pub streams: Vec<StreamState>,
    /// Those that could be read.
    pub consumers: Vec<ConsumerState>,
    /// Whether all could be read.
    pub whole: bool,
}

#[derive(Deserialize)]
struct StreamInfo {
    config: StreamConfig,
    state: State,
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct StreamConfig {
    num_replicas: usize,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
    bytes: u64,
    last_seq: u64,
    /// Messages by subject, of those that were asked for.
    subjects: Option<HashMap<String, u64>>,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    num_pending: u64,
    num_ack_pending: u64,
    num_redelivered: u64,
}

impl Census {
    /// Asks for these streams, and for these consumers by stream and name.
    pub async fn take(
        link: &Link,
        streams: &[&'static str],
        consumers: &[(&'static str, &'static str)],
        deadline: Instant,
    ) -> Census {
        let mut census = Census { whole: true, ..Census::default() };
        for name in streams {
            // The records of letters that were discarded are none.
            let counted = serde_json::json!({ "subjects_filter": DISCARDED }).to_string();
            let query = if *name == DEAD_LETTERS { counted.into() } else { Bytes::new() };
            let info = found(link, format!("$JS.API.STREAM.INFO.{name}"), query, deadline).await;
            match info.and_then(|info| info.map_err(StoreError::from)) {
                Ok(info) => census.streams.push(stream(name, info)),
                Err(error) => census.miss(name, &error),
            }
        }
        for (stream, name) in consumers {
            match ask(link, format!("$JS.API.CONSUMER.INFO.{stream}.{name}"), deadline).await {
                Ok(info) => census.consumers.push(consumer(stream, name, &info)),
                Err(error) => census.miss(name, &error),
            }
        }
        census
    }

    /// A stream by its name.
    pub fn stream(&self, name: &str) -> Option<&StreamState> {
        self.streams.iter().find(|stream| stream.name == name)
    }

    fn miss(&mut self, name: &str, error: &StoreError) {
        tracing::debug!(name, %error, "the state of a stream or consumer cannot be read");
        self.whole = false;
    }
}

fn stream(name: &'static str, info: StreamInfo) -> StreamState {
    let alone = || (ALONE.to_owned(), 1);
    let (leader, current) = info.cluster.map_or_else(alone, |cluster| {
        let led = usize::from(!cluster.leader.is_empty());
        (cluster.leader, led + cluster.replicas.iter().filter(|peer| peer.current).count())
    });
    let counted: u64 = info.state.subjects.iter().flat_map(HashMap::values).sum();
    StreamState {
        name,
        messages: info.state.messages.saturating_sub(counted),
        bytes: info.state.bytes,
        last: info.state.last_seq,
        leader,
        replicas: info.config.num_replicas,
        current,
    }
}

fn consumer(stream: &'static str, name: &'static str, info: &ConsumerInfo) -> ConsumerState {
    ConsumerState {
        stream,
        name,
        pending: info.num_pending,
        unacknowledged: info.num_ack_pending,
        redelivered: info.num_redelivered,
    }
}

impl Source for Census {
    fn tell(&self, page: &mut Page) {
        page.flag(
            "jetstream_polled",
            "Whether all streams and consumers could be read last time.",
            &[],
            self.whole,
        );
        for stream in &self.streams {
            let label = [("stream", stream.name)];
            let levels = [
                ("jetstream_stream_messages", MESSAGES, stream.messages as f64),
                ("jetstream_stream_bytes", "Bytes of a stream.", stream.bytes as f64),
                ("jetstream_stream_last_sequence", "The last sequence of a stream.", stream.last as f64),
                ("jetstream_stream_replicas", "Replicas that a stream is to have.", stream.replicas as f64),
                ("jetstream_stream_replicas_current", "Replicas that are up to date.", stream.current as f64),
            ];
            for (name, help, value) in levels {
                page.level(name, help, &label, value);
            }
            let led = !stream.leader.is_empty();
            page.flag("jetstream_stream_leader", "Whether a stream has a leader.", &label, led);
        }
        for consumer in &self.consumers {
            let labels = [("stream", consumer.stream), ("consumer", consumer.name)];
            let levels = [
                ("jetstream_consumer_pending", "Messages that were not delivered yet.", consumer.pending),
                (
                    "jetstream_consumer_ack_pending",
                    "Messages that wait for their acknowledgement.",
                    consumer.unacknowledged,
                ),
                (
                    "jetstream_consumer_redelivered",
                    "Messages among these that came more than once.",
                    consumer.redelivered,
                ),
            ];
            for (name, help, value) in levels {
                page.level(name, help, &labels, value as f64);
            }
        }
    }
}
