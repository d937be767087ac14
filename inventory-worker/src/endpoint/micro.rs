//! ADR-32's PING, INFO and STATS of the service. The library's own STATS count an error only if its reply has no body,
//! and ours have one. Must not depend on the content of requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::{Client, Message};
use contract::Route;
use futures_util::StreamExt as _;
use futures_util::stream::{SelectAll, select_all};
use nats::Clock;
use serde::Serialize;
use tokio_util::task::AbortOnDropHandle;

use super::metrics::EndpointMetrics;

/// The service's name for `nats micro`.
pub const SERVICE: &str = "inventory";

const DESCRIPTION: &str = "Stock: check, reserve, release, read, adjust";
const VERBS: [Verb; 3] = [Verb::Ping, Verb::Info, Verb::Stats];

#[derive(Debug, Clone, Copy)]
enum Verb {
    Ping,
    Info,
    Stats,
}

/// An instance of the service.
struct Micro {
    client: Client,
    id: String,
    started: pbjson_types::Timestamp,
    routes: Vec<&'static Route>,
    told: Told,
}

/// Whether requests can be served now.
pub type Able = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the answers are built from.
pub(super) struct Told {
    pub(super) metrics: Arc<EndpointMetrics>,
    pub(super) clock: Arc<Clock>,
    pub(super) able: Able,
}

/// The common fields of all answers.
#[derive(Serialize)]
struct Answer<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
    id: &'a str,
    version: &'static str,
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    more: T,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Info {
    description: &'static str,
    endpoints: Vec<EndpointInfo>,
}

#[derive(Serialize)]
struct EndpointInfo {
    name: &'static str,
    subject: &'static str,
    queue_group: &'static str,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Stats<'a> {
    started: &'a pbjson_types::Timestamp,
    endpoints: Vec<EndpointStats>,
}

#[derive(Serialize)]
struct EndpointStats {
    name: &'static str,
    subject: &'static str,
    queue_group: &'static str,
    num_requests: u64,
    num_errors: u64,
    /// `number:text`; empty if there was none.
    last_error: String,
    /// In nanoseconds, like the next.
    processing_time: u64,
    average_processing_time: u64,
    data: Data,
}

/// Additional data of the service.
#[derive(Serialize)]
struct Data {
    clock_skew_ms: Option<i64>,
    /// Whether it can serve now: gateways consider the service down if no instance can.
    serving: bool,
}

/// Answers until the connection is drained, or this is dropped.
pub(super) async fn serve(
    client: Client,
    routes: Vec<&'static Route>,
    told: Told,
) -> Result<AbortOnDropHandle<()>, async_nats::SubscribeError> {
    // An inbox ends with a unique id.
    let id = client.new_inbox().rsplit('.').next().unwrap_or_default().to_owned();
    let mut asked = Vec::new();
    for verb in VERBS {
        let mut questions = SelectAll::new();
        for subject in subjects(verb, &id) {
            questions.push(client.subscribe(subject).await?);
        }
        asked.push(questions.map(move |message: Message| (verb, message)));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = pbjson_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or_default(),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    };
    let micro = Micro { client, id, started, routes, told };
    let answering = async move {
        let mut asked = select_all(asked);
        while let Some((verb, message)) = asked.next().await {
            micro.answer(verb, message).await;
        }
    };
    Ok(AbortOnDropHandle::new(tokio::spawn(answering)))
}

fn subjects(verb: Verb, id: &str) -> [String; 3] {
    let verb = match verb {
        Verb::Ping => "PING",
        Verb::Info => "INFO",
        Verb::Stats => "STATS",
    };
    [format!("$SRV.{verb}"), format!("$SRV.{verb}.{SERVICE}"), format!("$SRV.{verb}.{SERVICE}.{id}")]
}

impl Micro {
    async fn answer(&self, verb: Verb, message: Message) {
        let Some(to) = message.reply else { return };
        let answer = match verb {
            Verb::Ping => self.json("io.nats.micro.v1.ping_response", Nothing {}),
            Verb::Info => self.json("io.nats.micro.v1.info_response", self.info()),
            Verb::Stats => self.json("io.nats.micro.v1.stats_response", self.stats()),
        };
        match answer {
            // An error means that the connection is closed, which is reported elsewhere.
            Ok(answer) => drop(self.client.publish(to, answer.into()).await),
            Err(error) => tracing::error!(%error, "a reply of the service discovery cannot be encoded"),
        }
    }

    fn json(&self, kind: &'static str, more: impl Serialize) -> serde_json::Result<Vec<u8>> {
        let (name, version) = (SERVICE, version::VERSION);
        let metadata = BTreeMap::from([("commit".to_owned(), version::COMMIT.to_owned())]);
        serde_json::to_vec(&Answer { kind, name, id: &self.id, version, metadata, more })
    }

    fn info(&self) -> Info {
        let endpoint = |route: &&'static Route| EndpointInfo {
            name: route.subject,
            subject: route.subject,
            queue_group: route.queue_group,
            metadata: BTreeMap::new(),
        };
        Info { description: DESCRIPTION, endpoints: self.routes.iter().map(endpoint).collect() }
    }

    fn stats(&self) -> Stats<'_> {
        let endpoint = |route: &&'static Route| {
            let seen = self.told.metrics.seen(route.subject);
            EndpointStats {
                name: route.subject,
                subject: route.subject,
                queue_group: route.queue_group,
                num_requests: seen.requests,
                num_errors: seen.failures,
                last_error: seen.last,
                processing_time: seen.nanos,
                average_processing_time: seen.nanos.checked_div(seen.requests).unwrap_or_default(),
                data: Data { clock_skew_ms: self.told.clock.skew_ms(), serving: (self.told.able)() },
            }
        };
        Stats { started: &self.started, endpoints: self.routes.iter().map(endpoint).collect() }
    }
}
