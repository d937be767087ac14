//! What JetStream says of our streams and consumers, for those who look after them. Must never be needed for an answer.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use telemetry::{Page, Source};
use tokio::time::Instant;

use crate::cluster::{Cluster, Replica};
use crate::inbox::Link;
use crate::store::{NO_STREAM, StoreError, found};
use crate::streams::{DEAD_LETTERS, DISCARDED};

const MESSAGES: &str = "Messages in a stream; of DEAD_LETTERS those that nobody has discarded.";
/// The leader where there is no cluster: a server on its own leads all of its streams.
const ALONE: &str = "alone";
/// What JetStream answers for something that has no leader now.
const NO_LEADER: u64 = 10008;
const NO_CONSUMER: u64 = 10014;

/// The figure of a stream's leader.
const LEADER: (&str, &str) = ("jetstream_stream_leader", "Whether a stream has a leader.");

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
    /// The servers that have the other replicas.
    pub followers: Vec<Follower>,
}

/// A server with a replica that it does not lead, as the leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Follower {
    /// The server's name.
    pub name: String,
    /// Whether its replica is up to date.
    pub current: bool,
    /// Whether the cluster takes it for offline.
    pub offline: bool,
    /// Entries that it is behind.
    pub lag: u64,
    /// When the leader heard of it last.
    pub silent: Duration,
}

/// Why something could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It has no leader now.
    NoLeader,
    /// It is not there.
    Missing,
    /// Nobody said.
    NoAnswer,
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
    /// Streams that could not be read, and why.
    pub unread: Vec<(&'static str, Unread)>,
    /// Whether all could be read.
    pub whole: bool,
    /// Whether anything was answered at all.
    pub answered: bool,
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
        // All at once: one that does not answer takes no time from the others.
        let streams = streams.iter().map(|name| async move {
            // The records of letters that were discarded are none.
            let counted = serde_json::json!({ "subjects_filter": DISCARDED }).to_string();
            let query = if *name == DEAD_LETTERS { counted.into() } else { Bytes::new() };
            (*name, read(link, format!("$JS.API.STREAM.INFO.{name}"), query, deadline).await)
        });
        let consumers = consumers.iter().map(|(stream, name)| async move {
            let subject = format!("$JS.API.CONSUMER.INFO.{stream}.{name}");
            (*stream, *name, read::<ConsumerInfo>(link, subject, Bytes::new(), deadline).await)
        });
        let (streams, consumers) = tokio::join!(join_all(streams), join_all(consumers));
        let mut census = Census { whole: true, ..Census::default() };
        for (name, read) in streams {
            census.note(read.as_ref().err());
            match read {
                Ok(info) => census.streams.push(stream(name, info)),
                Err(why) => census.unread.push((name, why)),
            }
        }
        for (stream, name, read) in consumers {
            census.note(read.as_ref().err());
            census.consumers.extend(read.ok().map(|info| consumer(stream, name, &info)));
        }
        census
    }

    /// A stream by its name.
    pub fn stream(&self, name: &str) -> Option<&StreamState> {
        self.streams.iter().find(|stream| stream.name == name)
    }

    fn note(&mut self, unread: Option<&Unread>) {
        self.whole &= unread.is_none();
        self.answered |= unread != Some(&Unread::NoAnswer);
    }
}

async fn read<T: DeserializeOwned>(
    link: &Link,
    subject: String,
    query: Bytes,
    deadline: Instant,
) -> Result<T, Unread> {
    let why = match found::<T>(link, subject.clone(), query, deadline).await {
        Ok(Ok(info)) => return Ok(info),
        Ok(Err(error)) if error.err_code == NO_LEADER => Unread::NoLeader,
        Ok(Err(error)) if [NO_STREAM, NO_CONSUMER].contains(&error.err_code) => Unread::Missing,
        Ok(Err(error)) => {
            tracing::debug!(subject, error = %StoreError::from(error), "the state cannot be read");
            Unread::NoAnswer
        }
        Err(error) => {
            tracing::debug!(subject, %error, "the state of a stream or consumer cannot be read");
            Unread::NoAnswer
        }
    };
    Err(why)
}

fn stream(name: &'static str, info: StreamInfo) -> StreamState {
    let alone = || Cluster { leader: ALONE.to_owned(), replicas: Vec::new() };
    let Cluster { leader, replicas } = info.cluster.unwrap_or_else(alone);
    let current = usize::from(!leader.is_empty()) + replicas.iter().filter(|peer| peer.current).count();
    let counted: u64 = info.state.subjects.iter().flat_map(HashMap::values).sum();
    StreamState {
        name,
        messages: info.state.messages.saturating_sub(counted),
        bytes: info.state.bytes,
        last: info.state.last_seq,
        leader,
        replicas: info.config.num_replicas,
        current,
        followers: replicas.into_iter().map(Follower::from).collect(),
    }
}

impl From<Replica> for Follower {
    fn from(replica: Replica) -> Follower {
        let Replica { name, current, offline, lag, active } = replica;
        Follower { name, current, offline, lag, silent: Duration::from_nanos(active) }
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
            page.flag(LEADER.0, LEADER.1, &label, !stream.leader.is_empty());
        }
        for (name, _) in self.unread.iter().filter(|(_, why)| *why == Unread::NoLeader) {
            page.flag(LEADER.0, LEADER.1, &[("stream", name)], false);
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
