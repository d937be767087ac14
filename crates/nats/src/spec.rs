//! Streams as their owner wants them, and what may be wrong with one. Must not talk to JetStream.

use std::collections::HashMap;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use crate::error::NO_LEADER;

/// The entry of a stream's metadata by which a stream that was created again is recognized.
pub(crate) const IDENTITY: &str = "order-gateway-identity";

/// A stream that a process needs.
#[derive(Debug, Clone)]
pub struct StreamSpec {
    /// Its name, as in its configuration.
    pub name: &'static str,
    /// Its configuration, with the replicas that a new one gets.
    pub config: Config,
    /// Whether no call can be served while nothing can be stored in it.
    pub required: bool,
    /// Whether this process writes to it constantly, so that the outcome of its last append says how the stream is.
    pub written: bool,
}

/// A configuration of a stream that loses nothing by itself, with an identity of its own: no limit, file storage, appends
/// refused when a limit of the operator's is reached, reads by the leader alone.
pub fn durable(name: &str, subjects: &[&str], replicas: usize) -> Config {
    Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        allow_direct: false,
        metadata: HashMap::from([(IDENTITY.to_owned(), uuid::Uuid::new_v4().to_string())]),
        ..Config::default()
    }
}

/// Why the streams cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StreamMismatch {
    /// The server is too old.
    #[error("nats-server {found} is too old: 2.12.0 or newer is needed")]
    Server {
        /// Its version.
        found: String,
    },
    /// JetStream is not enabled, or did not answer.
    #[error(
        "JetStream does not answer: {0}; is it enabled (nats-server -js)? In a cluster: are enough nodes up?"
    )]
    JetStream(String),
    /// JetStream is enabled, but the cluster has no leader.
    #[error("JetStream is not available: {0}; {NO_LEADER}")]
    NoLeader(String),
    /// JetStream refused to create a stream.
    #[error("JetStream cannot create the stream {stream}: {why}")]
    Refused {
        /// The stream.
        stream: String,
        /// JetStream's error text.
        why: String,
    },
    /// A stream does not exist, and creating it was not allowed.
    #[error(
        "the stream {0} does not exist; create it with `gateway provision`, or allow --provision auto; or, after a loss, \
         restore a backup first (docs/recover.md)"
    )]
    Missing(String),
    /// A stream exists without the configuration that correctness needs.
    #[error(
        "the stream {stream} has {field}: {found}, but needs {needed}; change it with `nats stream edit {stream}`; \
         deleting the stream would lose its contents"
    )]
    Differs {
        /// The stream.
        stream: String,
        /// The field.
        field: &'static str,
        /// The value found.
        found: String,
        /// The value needed.
        needed: String,
    },
    /// A stream captures the subject of requests, and would answer them.
    #[error(
        "the stream {stream} captures the subject {subject} and would answer requests in place of the service"
    )]
    Captures {
        /// The stream.
        stream: String,
        /// The subject.
        subject: String,
    },
}

/// Two streams, for tests.
#[cfg(test)]
pub(crate) fn samples(replicas: usize) -> [Config; 2] {
    let republish = async_nats::jetstream::stream::Republish {
        source: "one.event.*.*".to_owned(),
        destination: "{{wildcard(1)}}".to_owned(),
        headers_only: false,
    };
    let one = durable("ONE", &["one.event.*.*", "one.fence.*"], replicas);
    let two = durable("TWO", &["two.ledger"], replicas);
    [
        Config { republish: Some(republish), deny_delete: true, deny_purge: true, ..one },
        Config { deny_delete: true, ..two },
    ]
}
