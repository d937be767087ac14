//! What servers say about our user, about JetStream, about a stream and about subscriptions, for a diagnosis: read, never
//! changed. Must not decide what is wrong.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use pbjson_types::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use crate::api::{answer, found};
use crate::error::{NO_STREAM, StoreError, of_read};
use crate::monitor::Monitor;
use crate::mux::{Connection, RequestError};

/// "JetStream not enabled" and "JetStream not enabled for account".
const NOT_ENABLED: [u64; 2] = [10076, 10039];
/// Time limit for the answer of a monitoring port.
const LIMIT: Duration = Duration::from_secs(3);

/// Our user, as the server that it is connected to knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserInfo {
    /// Its name.
    pub user: String,
    /// The account.
    pub account: String,
    /// The subjects that it may publish to; none: all.
    pub publish: Option<Permission>,
    /// The subjects that it may subscribe to, some with a space and a queue group behind; none: all.
    pub subscribe: Option<Permission>,
    /// The server's time of day, in unix milliseconds.
    pub server_unix_ms: u64,
}

/// What is allowed: what `allow` has, or all if it is empty, but for what `deny` has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Permission {
    /// Patterns of subjects.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Patterns of subjects.
    #[serde(default)]
    pub deny: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    server: Server,
    data: Data,
}

#[derive(Deserialize)]
struct Server {
    time: Timestamp,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    user: String,
    account: String,
    #[serde(default)]
    permissions: Permissions,
}

#[derive(Default, Deserialize)]
struct Permissions {
    publish: Option<Permission>,
    subscribe: Option<Permission>,
}

/// What matters of a stream's configuration for who stores or reads messages there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFacts {
    /// The patterns of subjects that it captures; none of a mirror.
    pub subjects: Vec<String>,
    /// How many replicas it has.
    pub replicas: usize,
    /// Whether it is in memory, not in files.
    pub in_memory: bool,
    /// For how long it knows the ids of messages.
    pub duplicate_window: Duration,
    /// Whether its servers are a cluster.
    pub clustered: bool,
    /// Whether it has messages on other subjects: it is a mirror, has sources, or transforms subjects.
    pub stores_others: bool,
}

#[derive(Deserialize)]
struct Info {
    config: Configured,
    cluster: Option<ClusterName>,
}

#[derive(Deserialize)]
struct Configured {
    #[serde(default)]
    subjects: Vec<String>,
    num_replicas: usize,
    storage: String,
    #[serde(default)]
    duplicate_window: u64,
    mirror: Option<IgnoredAny>,
    sources: Option<IgnoredAny>,
    subject_transform: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ClusterName {
    /// Empty of a server on its own.
    #[serde(default)]
    name: String,
}

/// A subscription of a client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subscribed {
    /// The number of the client's connection on its server.
    #[serde(rename = "cid")]
    pub client: u64,
    /// The queue group; empty for none.
    #[serde(default, rename = "qgroup")]
    pub queue_group: String,
}

#[derive(Deserialize)]
struct Subsz {
    #[serde(default)]
    subscriptions_list: Vec<Subscribed>,
}

impl UserInfo {
    /// Asks the server that we are connected to (`$SYS.REQ.USER.INFO`).
    ///
    /// # Errors
    ///
    /// Nothing was read: the user may not ask, there is no answer in time, or none that can be read.
    pub async fn read(link: &Connection, deadline: Instant) -> Result<UserInfo, StoreError> {
        let asked = link.request("$SYS.REQ.USER.INFO", HeaderMap::new(), Bytes::new(), deadline);
        let reply = asked.await?;
        let Answer { server, data } = serde_json::from_slice(&reply.payload)
            .map_err(|error| StoreError::Unexpected(format!("the server says of our user: {error}")))?;
        let Permissions { publish, subscribe } = data.permissions;
        let millis = server.time.seconds.saturating_mul(1_000) + i64::from(server.time.nanos) / 1_000_000;
        let server_unix_ms = u64::try_from(millis).unwrap_or_default();
        Ok(UserInfo { user: data.user, account: data.account, publish, subscribe, server_unix_ms })
    }
}

/// Whether our account has JetStream.
///
/// # Errors
///
/// Nothing was read, as for [`UserInfo::read`].
pub async fn has_jetstream(link: &Connection, deadline: Instant) -> Result<bool, StoreError> {
    let reply = match link.request("$JS.API.INFO", HeaderMap::new(), Bytes::new(), deadline).await {
        Err(RequestError::NoResponders) => return Ok(false),
        reply => reply?,
    };
    match answer::<IgnoredAny>(&reply.payload)? {
        Ok(_) => Ok(true),
        Err(error) if NOT_ENABLED.contains(&error.err_code) => Ok(false),
        Err(error) => Err(of_read(error)),
    }
}

impl StreamFacts {
    /// Asks the leader of a stream; none if the stream does not exist.
    ///
    /// # Errors
    ///
    /// Nothing was read, as for [`crate::Store::last`].
    pub async fn read(
        link: &Connection,
        stream: &str,
        deadline: Instant,
    ) -> Result<Option<StreamFacts>, StoreError> {
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        let Info { config, cluster } = match found::<Info>(link, subject, Bytes::new(), deadline).await? {
            Err(error) if error.err_code == NO_STREAM => return Ok(None),
            info => info.map_err(of_read)?,
        };
        let Configured { mirror, sources, subject_transform, .. } = config;
        Ok(Some(StreamFacts {
            stores_others: mirror.or(sources).or(subject_transform).is_some(),
            subjects: config.subjects,
            replicas: config.num_replicas,
            in_memory: config.storage == "memory",
            duplicate_window: Duration::from_nanos(config.duplicate_window),
            clustered: cluster.is_some_and(|cluster| !cluster.name.is_empty()),
        }))
    }
}

/// The subscriptions of an account that get what is published on a subject, from all servers with these monitoring
/// ports.
///
/// # Errors
///
/// Which port cannot be read, and why.
pub async fn subscriptions(
    monitor: &Monitor,
    account: &str,
    subject: &str,
) -> Result<Vec<Subscribed>, String> {
    let page = format!("subsz?subs=1&acc={account}&test={subject}");
    let mut all = Vec::new();
    for url in monitor.urls() {
        let read = monitor.get::<Subsz>(url, &page, LIMIT).await;
        let read = read.map_err(|why| format!("the monitoring port {}: {why}", cli::url::shown(url)))?;
        all.extend(read.subscriptions_list);
    }
    Ok(all)
}
