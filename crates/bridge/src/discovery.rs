//! Service discovery: which subjects are served now, as the services themselves report (ADR-32, `$SRV.STATS`). Must not
//! depend on what the subjects are for.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::Take;
use nats::Connection;
use serde::Deserialize;
use tokio::time::timeout;

/// How long answers to a discovery request are collected.
pub const WAIT: Duration = Duration::from_millis(300);
/// Maximum number of answers that are read.
const MOST: usize = 10_000;

/// The wanted subjects that have responders.
#[derive(Debug, Default)]
pub struct Served<'a> {
    /// Subjects with a service that does not report that it cannot serve.
    pub able: HashSet<&'a str>,
    /// Subjects with a service that reports that it cannot serve now.
    pub unable: HashSet<&'a str>,
}

/// An instance of a service, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// The service's name.
    pub name: String,
    /// The service's version.
    pub version: String,
    /// Requests received, on all subjects.
    pub requests: u64,
    /// Requests refused, as reported.
    pub failures: u64,
    /// How far its clock is ahead of JetStream's, in milliseconds, if reported.
    pub clock_skew_ms: Option<i64>,
    /// What it serves.
    pub endpoints: Vec<Endpoint>,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
}

/// What an instance serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The subject, which may have wildcards.
    pub subject: String,
    /// Its queue group, empty for none; `None` if the instance does not say.
    pub queue_group: Option<String>,
}

#[derive(Deserialize)]
struct Stats {
    id: String,
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    endpoints: Vec<EndpointStats>,
}

#[derive(Deserialize)]
struct EndpointStats {
    subject: String,
    queue_group: Option<String>,
    #[serde(default)]
    num_requests: u64,
    #[serde(default)]
    num_errors: u64,
    #[serde(default)]
    data: serde_json::Value,
}

/// The instances that answer a request to `question` (`$SRV.STATS`, that of one service, or `$SRV.INFO`, which has no
/// numbers) within `wait`, sorted by id. None if nothing was received, not even "no responders": then the instances are
/// unknown.
pub async fn instances(link: &Connection, question: &'static str, wait: Duration) -> Option<Vec<Instance>> {
    let (mut found, mut heard) = (Vec::new(), false);
    let mut replies = ask(link, question).await?;
    let collect = async {
        while let Some(message) = replies.next().await {
            heard = true;
            let Ok(stats) = serde_json::from_slice::<Stats>(&message.payload) else { continue };
            found.push(Instance::from(stats));
        }
    };
    let _ = timeout(wait, collect).await;
    found.sort_by(|one, other| one.id.cmp(&other.id));
    heard.then_some(found)
}

impl From<Stats> for Instance {
    fn from(stats: Stats) -> Instance {
        // A service that counts its refusals itself reports one total with each of its endpoints.
        let told = stats.endpoints.iter().filter_map(|endpoint| endpoint.data["failures"].as_u64()).max();
        let skew = stats.endpoints.iter().find_map(|endpoint| endpoint.data["clock_skew_ms"].as_i64());
        let counted = stats.endpoints.iter().map(|endpoint| endpoint.num_errors).sum();
        Instance {
            requests: stats.endpoints.iter().map(|endpoint| endpoint.num_requests).sum(),
            failures: told.unwrap_or(counted),
            clock_skew_ms: skew,
            endpoints: stats.endpoints.into_iter().map(Endpoint::from).collect(),
            id: stats.id,
            name: stats.name,
            version: stats.version,
            metadata: stats.metadata,
        }
    }
}

impl From<EndpointStats> for Endpoint {
    fn from(EndpointStats { subject, queue_group, .. }: EndpointStats) -> Endpoint {
        Endpoint { subject, queue_group }
    }
}

/// The wanted subjects that are served. Returns early when all are found. An instance that cannot serve reports it in
/// its endpoints' `data`: `{"serving": false}`.
pub async fn served<'a>(link: &Connection, wanted: &HashSet<&'a str>) -> Served<'a> {
    let mut found = Served::default();
    // A timeout is normal: there is no signal that all have answered.
    let _ = timeout(WAIT, collect(link, wanted, &mut found)).await;
    found
}

async fn collect<'a>(link: &Connection, wanted: &HashSet<&'a str>, found: &mut Served<'a>) {
    let Some(mut replies) = ask(link, "$SRV.STATS").await else { return };
    while found.able.len() < wanted.len()
        && let Some(message) = replies.next().await
    {
        // "No responders", or a reply that is not from a service.
        let Ok(stats) = serde_json::from_slice::<Stats>(&message.payload) else { continue };
        for endpoint in stats.endpoints {
            let Some(subject) = wanted.get(endpoint.subject.as_str()) else { continue };
            match endpoint.data["serving"].as_bool() {
                Some(false) => found.unable.insert(*subject),
                _ => found.able.insert(*subject),
            };
        }
    }
}

/// Sends an ADR-32 request, and returns the replies of all services.
async fn ask(link: &Connection, question: &'static str) -> Option<Take<Subscriber>> {
    let client = link.client();
    let inbox = client.new_inbox();
    let replies = client.subscribe(inbox.clone()).await.ok()?;
    client.publish_with_reply(question, inbox, Bytes::new()).await.ok()?;
    Some(replies.take(MOST))
}
