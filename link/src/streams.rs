//! The streams: how each is made, and found again. What of one that exists may differ is not decided here.

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

use crate::inbox::Link;
use crate::store::{AGAIN, answer};
use crate::{fit, monitor};

/// The record of orders and their events.
pub const ORDERS: &str = "ORDERS";
/// The stock's ledger.
pub const INVENTORY: &str = "INVENTORY";
/// The ledger's snapshots: an object store's stream, made by us because the library's would allow direct reads.
pub const SNAPSHOTS: &str = "OBJ_inventory-snapshots";
/// The object store in `SNAPSHOTS`.
pub const SNAPSHOT_BUCKET: &str = "inventory-snapshots";
/// What the names of snapshots begin with; the ledger's sequence follows.
pub const SNAPSHOT_PREFIX: &str = "snapshot-";
/// Events that could not be worked off.
pub const DEAD_LETTERS: &str = "DEAD_LETTERS";

/// All of them.
pub const ALL: [&str; 4] = [ORDERS, INVENTORY, SNAPSHOTS, DEAD_LETTERS];

/// The subject of the ledger.
pub const LEDGER_SUBJECT: &str = "inventory.ledger";
/// The subjects of dead letters begin with this.
pub const DEAD_LETTER_PREFIX: &str = "dead_letters.orders";
/// The subject of the records of dead letters that were discarded, in the same stream.
pub const DISCARDED: &str = "dead_letters.discarded";

pub(crate) const IDENTITY: &str = "order-gateway-identity";
const LIMIT: Duration = Duration::from_secs(10);
/// An answer that has not come after this long was lost on the way, as in a cluster whose servers just find each other.
const ANSWER: Duration = Duration::from_secs(2);
/// How long JetStream may take to say which stream has a subject.
const NAMES: Duration = Duration::from_secs(5);

/// The streams as found or made.
#[derive(Debug, Clone)]
pub struct Streams {
    /// The identity of ORDERS: changes when the stream is made anew, so that old tokens are known.
    pub orders: String,
    /// How many replicas ORDERS has.
    pub replicas: usize,
    /// Those that were made just now.
    pub made: Vec<&'static str>,
    /// What makes acknowledged writes less durable than they could be, and what to do about it: to be shown.
    pub warnings: Vec<String>,
}

/// Why the streams cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The server is too old.
    #[error("nats-server {found} is too old: 2.12.0 or newer is needed")]
    Server {
        /// Its version.
        found: String,
    },
    /// The server has no JetStream, or did not answer.
    #[error("JetStream does not answer: {0}; is it enabled (nats-server -js)?")]
    JetStream(String),
    /// JetStream will not make a stream.
    #[error("JetStream does not make the stream {stream}: {why}")]
    Refused {
        /// The stream.
        stream: &'static str,
        /// Its words.
        why: String,
    },
    /// A stream is missing, and was not to be made.
    #[error("the stream {0} does not exist; make it with `gateway provision`, or allow --provision auto")]
    Missing(&'static str),
    /// A stream exists with other settings than correctness needs.
    #[error(
        "the stream {stream} has {field}: {found}, and needs {needed}; change it with `nats stream edit {stream}`; \
         removing it would lose what it holds"
    )]
    Differs {
        /// The stream.
        stream: String,
        /// The field.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it has to be.
        needed: String,
    },
    /// A stream captures a subject that requests are sent to, and would answer them.
    #[error(
        "the stream {stream} captures the subject {subject}, and would answer requests in the service's place"
    )]
    Captures {
        /// The stream.
        stream: String,
        /// The subject.
        subject: String,
    },
}

impl Streams {
    /// Finds the streams, makes those that are missing if `make`, and checks them all.
    pub async fn open(link: &Link, replicas: usize, make: bool) -> Result<Streams, Unfit> {
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
        let warnings = fit::warnings(&found, make.then_some(replicas));
        let replicas = found.first().map_or(1, |config| config.num_replicas);
        Ok(Streams { orders: orders.unwrap_or_default(), replicas, made, warnings })
    }

    /// What may cost what was acknowledged: the warnings, and what the servers' monitoring says of their syncs. What it says
    /// of their routes takes longer, and is logged when it is known.
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

/// Gives a stream another identity, in its configuration as the server writes it.
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
            description: Some("Order events that could not be worked off".to_owned()),
            ..base(DEAD_LETTERS, &["dead_letters.>"])
        },
    ]
}

async fn ensure(context: &jetstream::Context, config: Config, make: bool) -> Result<Config, Unfit> {
    let name = config.name.clone();
    let lost = |error: &dyn std::fmt::Display| Unfit::JetStream(error.to_string());
    let stream = match Box::pin(look(context, &name)).await.map_err(|error| lost(&error))? {
        Ok(stream) => stream,
        Err(error) if missing(error.kind()) && make => {
            let made = answered(|| Box::pin(make_stream(context, &config))).await;
            match made.map_err(|error| lost(&error))? {
                Ok(stream) => stream,
                // Somebody else made it at the same time, with another identity.
                Err(error) if exists(error.kind()) => {
                    let found = answered(|| Box::pin(context.get_stream(&name)))
                        .await
                        .map_err(|error| lost(&error))?;
                    found.map_err(|error| lost(&error))?
                }
                Err(error) => {
                    return Err(match error.kind() {
                        CreateStreamErrorKind::JetStream(no) => {
                            Unfit::Refused { stream: known(&name), why: no.to_string() }
                        }
                        _ => lost(&error),
                    });
                }
            }
        }
        Err(error) if missing(error.kind()) => {
            return Err(Unfit::Missing(known(&name)));
        }
        Err(error) => return Err(lost(&error)),
    };
    let found = &stream.cached_info().config;
    fit::check(&config, found)?;
    Ok(found.clone())
}

/// Asks something that may be asked twice until there is an answer.
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

/// Makes a stream. A cluster that has just begun may not know all of its servers yet.
async fn make_stream(context: &jetstream::Context, config: &Config) -> Result<Stream, CreateStreamError> {
    loop {
        match context.create_stream(config.clone()).await {
            Err(error) if no_peers(error.kind()) => sleep(AGAIN).await,
            made => return made,
        }
    }
}

/// Looks for a stream. That there is none is believed when it is said twice: who leads since a moment ago may not know it.
async fn look(context: &jetstream::Context, name: &str) -> Result<Result<Stream, GetStreamError>, Elapsed> {
    let get = || answered(|| Box::pin(context.get_stream(name)));
    match get().await? {
        Err(error) if missing(error.kind()) => {
            sleep(AGAIN).await;
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

fn version(link: &Link) -> Result<(), Unfit> {
    if link.client().is_server_compatible(2, 12, 0) {
        return Ok(());
    }
    Err(Unfit::Server { found: link.client().server_info().version })
}

/// A stream on a request's subject would answer it with its own acknowledgement.
async fn captured(link: &Link, subject: &str) -> Result<(), Unfit> {
    match capturer(link, subject).await? {
        None => Ok(()),
        Some(stream) => Err(Unfit::Captures { stream, subject: subject.to_owned() }),
    }
}

/// The stream that captures a subject, if there is one.
///
/// # Errors
///
/// JetStream did not say.
pub async fn capturer(link: &Link, subject: &str) -> Result<Option<String>, Unfit> {
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
        .map_err(|trouble| Unfit::JetStream(trouble.to_string()))?;
    let names = answer::<Names>(&reply.payload).map_err(|error| Unfit::JetStream(error.to_string()))?;
    let names = names.map_err(|error| Unfit::JetStream(error.description))?;
    Ok(names.streams.unwrap_or_default().pop())
}
