//! A survey: which subjects are served now, as the services themselves say (ADR-32, `$SRV.STATS`). Must never know
//! what the subjects are for.

use std::collections::{BTreeMap, HashSet};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::Take;
use link::Link;
use serde::Deserialize;
use tokio::time::timeout;

use crate::waits::SURVEY;

/// More answers than this are not read.
const MOST: usize = 10_000;

/// The wanted subjects that somebody answers on.
#[derive(Debug, Default)]
pub struct Served<'a> {
    /// Somebody can serve, as far as it tells.
    pub able: HashSet<&'a str>,
    /// Somebody is there, who says that it cannot serve now.
    pub unable: HashSet<&'a str>,
}

/// An instance of a service, as it tells itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// The service's name.
    pub name: String,
    /// The service's version.
    pub version: String,
    /// Requests that it had, of all subjects.
    pub requests: u64,
    /// Those that it refused, as far as it tells.
    pub failures: u64,
    /// By how much its clock is ahead of JetStream's, in milliseconds, if it tells.
    pub clock_skew_ms: Option<i64>,
    /// The subjects that it serves.
    pub subjects: Vec<String>,
    /// What it tells besides.
    pub metadata: BTreeMap<String, String>,
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
    #[serde(default)]
    num_requests: u64,
    #[serde(default)]
    num_errors: u64,
    #[serde(default)]
    data: serde_json::Value,
}

/// The instances that answer a question (`$SRV.STATS`, or that of one service) now, by id. None if nothing was heard, not even from NATS that
/// nobody is there: then it is not known who is.
pub async fn instances(link: &Link, question: &'static str) -> Option<Vec<Instance>> {
    let (mut found, mut heard) = (Vec::new(), false);
    let mut replies = ask(link, question).await?;
    let collect = async {
        while let Some(message) = replies.next().await {
            heard = true;
            let Ok(stats) = serde_json::from_slice::<Stats>(&message.payload) else { continue };
            found.push(Instance::from(stats));
        }
    };
    let _ = timeout(SURVEY, collect).await;
    found.sort_by(|one, other| one.id.cmp(&other.id));
    heard.then_some(found)
}

impl From<Stats> for Instance {
    fn from(stats: Stats) -> Instance {
        // A service that counts its refusals by itself says one number for all of its endpoints.
        let told = stats.endpoints.iter().filter_map(|endpoint| endpoint.data["failures"].as_u64()).max();
        let skew = stats.endpoints.iter().find_map(|endpoint| endpoint.data["clock_skew_ms"].as_i64());
        let counted = stats.endpoints.iter().map(|endpoint| endpoint.num_errors).sum();
        Instance {
            requests: stats.endpoints.iter().map(|endpoint| endpoint.num_requests).sum(),
            failures: told.unwrap_or(counted),
            clock_skew_ms: skew,
            subjects: stats.endpoints.into_iter().map(|endpoint| endpoint.subject).collect(),
            id: stats.id,
            name: stats.name,
            version: stats.version,
            metadata: stats.metadata,
        }
    }
}

/// The wanted subjects that somebody serves. Ends early when all are found. An instance that cannot serve says so in its
/// endpoints' `data`: `{"serving": false}`.
pub async fn served<'a>(link: &Link, wanted: &HashSet<&'a str>) -> Served<'a> {
    let mut found = Served::default();
    // The window's end is the normal one: nobody says when all have answered.
    let _ = timeout(SURVEY, collect(link, wanted, &mut found)).await;
    found
}

async fn collect<'a>(link: &Link, wanted: &HashSet<&'a str>, found: &mut Served<'a>) {
    let Some(mut replies) = ask(link, "$SRV.STATS").await else { return };
    while found.able.len() < wanted.len()
        && let Some(message) = replies.next().await
    {
        // Nobody there, or something that is no service: neither serves anything.
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

/// What all services answer to a question of ADR-32.
async fn ask(link: &Link, question: &'static str) -> Option<Take<Subscriber>> {
    let client = link.client();
    let inbox = client.new_inbox();
    let replies = client.subscribe(inbox.clone()).await.ok()?;
    client.publish_with_reply(question, inbox, Bytes::new()).await.ok()?;
    Some(replies.take(MOST))
}
