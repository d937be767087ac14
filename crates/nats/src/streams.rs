//! The streams: how each is created and found again. Which settings of an existing one may differ is not decided here.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind,
};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, ErrorCode};
use contract::subject;
use serde::Deserialize;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use crate::mux::Connection;
use crate::store::{RETRY_PAUSE, answer};
use crate::{check, monitor};

/// The stream of orders and their events.
pub const ORDERS: &str = "ORDERS";
/// The stock's ledger.
pub const INVENTORY: &str = "INVENTORY";
/// The ledger's snapshots: an object store's stream, created by us because the library's would allow direct reads.
pub const SNAPSHOTS: &str = "OBJ_inventory-snapshots";
/// The object store in `SNAPSHOTS`.
pub const SNAPSHOT_BUCKET: &str = "inventory-snapshots";
/// The prefix of snapshots' names; the ledger's sequence follows.
pub const SNAPSHOT_PREFIX: &str = "snapshot-";
/// Dead letters: events that could not be processed.
pub const DEAD_LETTERS: &str = "DEAD_LETTERS";

/// All streams.
pub const ALL: [&str; 4] = [ORDERS, INVENTORY, SNAPSHOTS, DEAD_LETTERS];

/// The subject of the ledger.
pub const LEDGER_SUBJECT: &str = "inventory.ledger";
/// The prefix of dead letters' subjects.
pub const DEAD_LETTER_PREFIX: &str = "dead_letters.orders";
/// The subject of the records of dead letters that were discarded, in the same stream.
pub const DISCARDED: &str = "dead_letters.discarded";

pub(crate) const IDENTITY: &str = "order-gateway-identity";
const LIMIT: Duration = Duration::from_secs(10);
/// An answer that has not arrived after this long was lost, as in a cluster whose servers are still finding each other.
const ANSWER: Duration = Duration::from_secs(2);
/// The time limit for the lookup of a subject's stream.
const NAMES: Duration = Duration::from_secs(5);

/// The streams, as found or created.
#[derive(Debug, Clone)]
pub struct Streams {
    /// The identity of ORDERS: changes when the stream is created again, so that old tokens are recognized.
    pub orders: String,
    /// How many replicas ORDERS has.
    pub replicas: usize,
    /// The streams that were created just now.
    pub made: Vec<&'static str>,
    /// Warnings, each with its remedy, about what makes acknowledged writes less durable.
    pub warnings: Vec<String>,
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
    #[error("JetStream does not answer: {0}; is it enabled (nats-server -js)?")]
    JetStream(String),
    /// JetStream refused to create a stream.
    #[error("JetStream cannot create the stream {stream}: {why}")]
    Refused {
        /// The stream.
        stream: &'static str,
        /// JetStream's error text.
        why: String,
    },
    /// A stream does not exist, and creating it was not allowed.
    #[error("the stream {0} does not exist; create it with `gateway provision`, or allow --provision auto")]
    Missing(&'static str),
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

impl Streams {
    /// Finds the streams, creates missing ones if `make`, and checks them all.
    pub async fn open(link: &Connection, replicas: usize, make: bool) -> Result<Streams, StreamMismatch> {
        version(link)?;
        let context = jetstream::new(link.client().clone());
        let (mut found, mut made) = (Vec::new(), Vec::new());
        for config in configs(replicas) {
            let ours = config.metadata.clone();
            let config = ensure(&context, config, make).await?;
            if config.metadata.get(IDENTITY) == ours.get(IDENTITY) {
                made.push(known(&config.name));
            }
            found.push(config);
        }
        for route in contract::route::ALL {
            captured(link, route.subject).await?;
        }
        let orders = found.first().map(|config| config.metadata.get(IDENTITY).cloned().unwrap_or_default());
        let warnings = check::warnings(&found, make.then_some(replicas));
        let replicas = found.first().map_or(1, |config| config.num_replicas);
        Ok(Streams { orders: orders.unwrap_or_default(), replicas, made, warnings })
    }

    /// Risks for acknowledged writes: the warnings, and what the servers' monitoring reports about syncing. Its report
    /// on routes takes longer, and is logged later.
    pub async fn durability(&self, monitor: Option<&str>) -> Vec<String> {
        if let Some(urls) = monitor.map(str::to_owned) {
            tokio::spawn(async move {
                for warning in monitor::routes(&urls).await {
                    tracing::warn!(target: "availability", "{warning}");
                }
            });
        }
        [self.warnings.clone(), monitor::warnings(monitor).await].concat()
    }
}

/// Sets a new identity in a stream's configuration in the server's JSON format.
pub fn rename(config: &mut serde_json::Value) {
    config["metadata"][IDENTITY] = uuid::Uuid::new_v4().to_string().into();
}

/// ORDERS comes first.
pub(crate) fn configs(replicas: usize) -> [Config; 4] {
    let base = |name: &str, subjects: &[&str]| Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        allow_direct: false,
        metadata: HashMap::from([(IDENTITY.to_owned(), uuid::Uuid::new_v4().to_string())]),
        ..Config::default()
    };
    [
        Config {
            description: Some("Orders: one event per change, the whole order in each".to_owned()),
            republish: Some(Republish {
                source: subject::EVENTS.to_owned(),
                destination: "{{wildcard(1)}}".to_owned(),
                headers_only: false,
            }),
            deny_delete: true,
            deny_purge: true,
            ..base(ORDERS, &[subject::EVENTS, subject::TOMBSTONES])
        },
        Config {
            description: Some("Stock: the ledger of facts".to_owned()),
            deny_delete: true,
            ..base(INVENTORY, &[LEDGER_SUBJECT])
        },
        Config {
            description: Some("Stock: snapshots of the ledger".to_owned()),
            allow_rollup: true,
            ..base(SNAPSHOTS, &["$O.inventory-snapshots.C.>", "$O.inventory-snapshots.M.>"])
        },
        Config {
            description: Some("Order events that could not be processed".to_owned()),
            ..base(DEAD_LETTERS, &["dead_letters.>"])
        },
    ]
}

async fn ensure(context: &jetstream::Context, config: Config, make: bool) -> Result<Config, StreamMismatch> {
    let name = config.name.clone();
    let lost = |error: &dyn std::fmt::Display| StreamMismatch::JetStream(error.to_string());
    let stream = match Box::pin(look(context, &name)).await.map_err(|error| lost(&error))? {
        Ok(stream) => stream,
        Err(error) if missing(error.kind()) && make => {
            let made = answered(|| Box::pin(make_stream(context, &config))).await;
            match made.map_err(|error| lost(&error))? {
                Ok(stream) => stream,
                // Another process created it at the same time, with another identity.
                Err(error) if exists(error.kind()) => {
                    let found = answered(|| Box::pin(context.get_stream(&name)))
                        .await
                        .map_err(|error| lost(&error))?;
                    found.map_err(|error| lost(&error))?
                }
                Err(error) => {
                    return Err(match error.kind() {
                        CreateStreamErrorKind::JetStream(no) => {
                            StreamMismatch::Refused { stream: known(&name), why: no.to_string() }
                        }
                        _ => lost(&error),
                    });
                }
            }
        }
        Err(error) if missing(error.kind()) => {
            return Err(StreamMismatch::Missing(known(&name)));
        }
        Err(error) => return Err(lost(&error)),
    };
    let found = &stream.cached_info().config;
    check::check(&config, found)?;
    Ok(found.clone())
}

/// Repeats an idempotent request until there is an answer.
async fn answered<F: Future>(ask: impl Fn() -> F) -> Result<F::Output, Elapsed> {
    let answer = async {
        loop {
            if let Ok(answer) = timeout(ANSWER, ask()).await {
                return answer;
            }
        }
    };
    timeout(LIMIT, answer).await
}

/// Creates a stream. A cluster that has just started may not know all of its servers yet.
async fn make_stream(context: &jetstream::Context, config: &Config) -> Result<Stream, CreateStreamError> {
    loop {
        match context.create_stream(config.clone()).await {
            Err(error) if no_peers(error.kind()) => sleep(RETRY_PAUSE).await,
            made => return made,
        }
    }
}

/// Looks up a stream. "Not found" counts only if it is answered twice: a new leader may not know the stream yet.
async fn look(context: &jetstream::Context, name: &str) -> Result<Result<Stream, GetStreamError>, Elapsed> {
    let get = || answered(|| Box::pin(context.get_stream(name)));
    match get().await? {
        Err(error) if missing(error.kind()) => {
            sleep(RETRY_PAUSE).await;
            get().await
        }
        found => Ok(found),
    }
}

fn missing(kind: GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn exists(kind: CreateStreamErrorKind) -> bool {
    matches!(kind, CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

fn no_peers(kind: CreateStreamErrorKind) -> bool {
    matches!(kind, CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::CLUSTER_NO_PEERS)
}

fn known(name: &str) -> &'static str {
    ALL.into_iter().find(|known| *known == name).unwrap_or(ORDERS)
}

fn version(link: &Connection) -> Result<(), StreamMismatch> {
    if link.client().is_server_compatible(2, 12, 0) {
        return Ok(());
    }
    Err(StreamMismatch::Server { found: link.client().server_info().version })
}

/// Refuses a stream on a request subject: it would answer requests with its acknowledgements.
async fn captured(link: &Connection, subject: &str) -> Result<(), StreamMismatch> {
    match capturer(link, subject).await? {
        None => Ok(()),
        Some(stream) => Err(StreamMismatch::Captures { stream, subject: subject.to_owned() }),
    }
}

/// The stream that captures a subject, if there is one.
///
/// # Errors
///
/// JetStream did not answer.
pub async fn capturer(link: &Connection, subject: &str) -> Result<Option<String>, StreamMismatch> {
    #[derive(Deserialize)]
    struct Names {
        #[serde(default)]
        streams: Option<Vec<String>>,
    }
    let query = serde_json::json!({ "subject": subject }).to_string();
    let deadline = Instant::now() + NAMES;
    let reply = link
        .request("$JS.API.STREAM.NAMES", async_nats::HeaderMap::new(), query.into(), deadline)
        .await
        .map_err(|trouble| StreamMismatch::JetStream(trouble.to_string()))?;
    let names =
        answer::<Names>(&reply.payload).map_err(|error| StreamMismatch::JetStream(error.to_string()))?;
    let names = names.map_err(|error| StreamMismatch::JetStream(error.description))?;
    Ok(names.streams.unwrap_or_default().pop())
}
