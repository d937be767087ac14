//! JetStream's statistics of our streams and consumers, for operators. No call may depend on them.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use telemetry::{Exposition, Source};
use tokio::time::Instant;

use crate::api::found;
use crate::cluster::{Cluster, Replica};
use crate::error::{NO_STREAM, StoreError};
use crate::mux::Connection;

const MESSAGES: &str = "Messages in a stream; discarded dead letters do not count.";
/// The leader without a cluster: a standalone server leads all of its streams.
const ALONE: &str = "alone";
/// JetStream's error code for a stream or consumer without a leader.
const NO_LEADER: u64 = 10008;
const NO_CONSUMER: u64 = 10014;

/// Name and HELP of the metric for a stream's leader.
const LEADER: (&str, &str) = ("jetstream_stream_leader", "Whether a stream has a leader.");

/// A stream, as its leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamState {
    /// Its name.
    pub name: &'static str,
    /// Messages in it, without those that do not count.
    pub messages: u64,
    /// Bytes used by them.
    pub bytes: u64,
    /// The last sequence.
    pub last: u64,
    /// The name of its leader; empty if it has none.
    pub leader: String,
    /// The configured number of replicas.
    pub replicas: usize,
    /// How many replicas are up to date, including the leader.
    pub current: usize,
    /// The servers with the other replicas.
    pub followers: Vec<ReplicaState>,
}

/// A server with a follower replica, as the leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicaState {
    /// The server's name.
    pub name: String,
    /// Whether its replica is up to date.
    pub current: bool,
    /// Whether the cluster considers it offline.
    pub offline: bool,
    /// By how many entries it lags.
    pub lag: u64,
    /// Time since the leader last heard from it.
    pub silent: Duration,
}

/// Why a stream's or consumer's state could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsError {
    /// It has no leader.
    NoLeader,
    /// It does not exist.
    Missing,
    /// There was no usable answer.
    NoAnswer,
}

/// A consumer, as its leader sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumerState {
    /// Its stream.
    pub stream: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Messages not delivered yet.
    pub pending: u64,
    /// Messages delivered and not acknowledged.
    pub unacknowledged: u64,
    /// Unacknowledged messages delivered more than once.
    pub redelivered: u64,
}

/// The statistics at one moment.
#[derive(Debug, Clone, Default)]
pub struct JetStreamStats {
    /// The streams that could be read.
    pub streams: Vec<StreamState>,
    /// The consumers that could be read.
    pub consumers: Vec<ConsumerState>,
    /// Streams that could not be read, and why.
    pub unread: Vec<(&'static str, StatsError)>,
    /// Whether all could be read.
    pub whole: bool,
    /// Whether there was any answer at all.
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
    /// Message counts by subject, for the requested subjects.
    subjects: Option<HashMap<String, u64>>,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    num_pending: u64,
    num_ack_pending: u64,
    num_redelivered: u64,
}

impl JetStreamStats {
    /// Reads the state of these streams, and of these consumers (stream, name). With a stream may come a subject whose
    /// messages do not count.
    pub async fn take(
        link: &Connection,
        streams: &[(&'static str, Option<&'static str>)],
        consumers: &[(&'static str, &'static str)],
        deadline: Instant,
    ) -> JetStreamStats {
        // Concurrently: one that does not answer takes no time from the others.
        let streams = streams.iter().copied().map(|(name, uncounted)| async move {
            let filter = |subject| serde_json::json!({ "subjects_filter": subject }).to_string().into();
            let query = uncounted.map_or_else(Bytes::new, filter);
            (name, read(link, format!("$JS.API.STREAM.INFO.{name}"), query, deadline).await)
        });
        let consumers = consumers.iter().map(|(stream, name)| async move {
            let subject = format!("$JS.API.CONSUMER.INFO.{stream}.{name}");
            (*stream, *name, read::<ConsumerInfo>(link, subject, Bytes::new(), deadline).await)
        });
        let (streams, consumers) = tokio::join!(join_all(streams), join_all(consumers));
        let mut census = JetStreamStats { whole: true, ..JetStreamStats::default() };
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

    fn note(&mut self, unread: Option<&StatsError>) {
        self.whole &= unread.is_none();
        self.answered |= unread != Some(&StatsError::NoAnswer);
    }
}

async fn read<T: DeserializeOwned>(
    link: &Connection,
    subject: String,
    query: Bytes,
    deadline: Instant,
) -> Result<T, StatsError> {
    let why = match found::<T>(link, subject.clone(), query, deadline).await {
        Ok(Ok(info)) => return Ok(info),
        Ok(Err(error)) if error.err_code == NO_LEADER => StatsError::NoLeader,
        Ok(Err(error)) if [NO_STREAM, NO_CONSUMER].contains(&error.err_code) => StatsError::Missing,
        Ok(Err(error)) => {
            tracing::debug!(subject, error = %StoreError::from(error), "stream or consumer state cannot be read");
            StatsError::NoAnswer
        }
        Err(error) => {
            tracing::debug!(subject, %error, "stream or consumer state cannot be read");
            StatsError::NoAnswer
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
        followers: replicas.into_iter().map(ReplicaState::from).collect(),
    }
}

impl From<Replica> for ReplicaState {
    fn from(replica: Replica) -> ReplicaState {
        let Replica { name, current, offline, lag, active } = replica;
        ReplicaState { name, current, offline, lag, silent: Duration::from_nanos(active) }
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

impl Source for JetStreamStats {
    fn collect(&self, page: &mut Exposition) {
        page.flag(
            "jetstream_polled",
            "Whether the last poll could read all streams and consumers.",
            &[],
            self.whole,
        );
        for stream in &self.streams {
            let label = [("stream", stream.name)];
            let levels = [
                ("jetstream_stream_messages", MESSAGES, stream.messages as f64),
                ("jetstream_stream_bytes", "Bytes stored in a stream.", stream.bytes as f64),
                ("jetstream_stream_last_sequence", "The last sequence of a stream.", stream.last as f64),
                ("jetstream_stream_replicas", "Configured replicas of a stream.", stream.replicas as f64),
                ("jetstream_stream_replicas_current", "Replicas that are up to date.", stream.current as f64),
            ];
            for (name, help, value) in levels {
                page.gauge(name, help, &label, value);
            }
            page.flag(LEADER.0, LEADER.1, &label, !stream.leader.is_empty());
        }
        for (name, _) in self.unread.iter().filter(|(_, why)| *why == StatsError::NoLeader) {
            page.flag(LEADER.0, LEADER.1, &[("stream", name)], false);
        }
        for consumer in &self.consumers {
            let labels = [("stream", consumer.stream), ("consumer", consumer.name)];
            let levels = [
                ("jetstream_consumer_pending", "Messages not delivered yet.", consumer.pending),
                (
                    "jetstream_consumer_ack_pending",
                    "Messages delivered and not acknowledged yet.",
                    consumer.unacknowledged,
                ),
                (
                    "jetstream_consumer_redelivered",
                    "Unacknowledged messages that were delivered more than once.",
                    consumer.redelivered,
                ),
            ];
            for (name, help, value) in levels {
                page.gauge(name, help, &labels, value as f64);
            }
        }
    }
}
