//! The streams that a process needs: found, created where they are missing, and checked. Which settings of an existing one
//! may differ is not decided here.

use std::time::Duration;

use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind,
};
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{self, ErrorCode};
use serde::Deserialize;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use crate::api::{RETRY_PAUSE, answer};
use crate::check;
use crate::durability;
use crate::error::NOT_AVAILABLE;
use crate::monitor::Monitor;
use crate::mux::Connection;
use crate::spec::{IDENTITY, StreamMismatch, StreamSpec};

const LIMIT: Duration = Duration::from_secs(10);
/// An answer that has not arrived after this long was lost, as in a cluster whose servers are still finding each other.
const ANSWER: Duration = Duration::from_secs(2);
/// The time limit for the lookup of a subject's stream.
const NAMES: Duration = Duration::from_secs(5);

/// The streams, as found or created.
#[derive(Debug, Clone)]
pub struct Streams {
    /// Their configurations on the server, in the order of the specs.
    pub found: Vec<Config>,
    /// The streams that were created just now.
    pub made: Vec<&'static str>,
    /// Warnings, each with its remedy, about what makes acknowledged writes less durable.
    pub warnings: Vec<String>,
}

impl Streams {
    /// Finds the streams, creates missing ones if `make`, and checks them all; and that no stream captures one of these
    /// subjects of requests.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong: the server is too old, or JetStream does not answer in time; a stream is missing
    /// (without `make`), cannot be created, or differs in a field that correctness needs; a stream captures a subject.
    /// Streams created before that stay.
    pub async fn open(
        link: &Connection,
        specs: &[StreamSpec],
        requests: &[&str],
        make: bool,
    ) -> Result<Streams, StreamMismatch> {
        check_version(link)?;
        let context = jetstream::new(link.client().clone());
        let (mut found, mut made) = (Vec::new(), Vec::new());
        for spec in specs {
            let config = ensure(&context, spec.config.clone(), make).await?;
            if config.metadata.get(IDENTITY) == spec.config.metadata.get(IDENTITY) {
                made.push(spec.name);
            }
            found.push(config);
        }
        for subject in requests {
            captured(link, subject).await?;
        }
        let replicas = specs.first().map(|spec| spec.config.num_replicas).filter(|_| make);
        let warnings = check::warnings(&found, replicas);
        Ok(Streams { found, made, warnings })
    }

    /// The configuration of a stream on the server.
    pub fn config(&self, name: &str) -> Option<&Config> {
        self.found.iter().find(|config| config.name == name)
    }

    /// The identity of a stream: another one after it was deleted and created again.
    pub fn identity(&self, name: &str) -> String {
        self.config(name).and_then(|config| config.metadata.get(IDENTITY).cloned()).unwrap_or_default()
    }

    /// Risks for acknowledged writes: the warnings, and what the servers' monitoring reports about syncing. Its report
    /// on routes takes longer, and is logged later.
    pub async fn durability(&self, monitor: Option<Monitor>) -> Vec<String> {
        if let Some(monitor) = monitor.clone() {
            tokio::spawn(async move {
                for warning in durability::routes(&monitor).await {
                    tracing::warn!(target: "availability", "{warning}");
                }
            });
        }
        [self.warnings.clone(), durability::warnings(monitor.as_ref()).await].concat()
    }
}

/// Sets a new identity in a stream's configuration in the server's JSON format.
pub fn rename(config: &mut serde_json::Value) {
    config["metadata"][IDENTITY] = uuid::Uuid::new_v4().to_string().into();
}

async fn ensure(context: &jetstream::Context, config: Config, make: bool) -> Result<Config, StreamMismatch> {
    let name = config.name.clone();
    let lost = |error: &dyn std::fmt::Display| StreamMismatch::JetStream(error.to_string());
    let stream = match Box::pin(look(context, &name)).await.map_err(silent)? {
        Ok(stream) => stream,
        Err(error) if missing(error.kind()) && make => {
            let made = answered(|| Box::pin(make_stream(context, &config))).await;
            match made.map_err(silent)? {
                Ok(stream) => stream,
                // Another process created it at the same time, with another identity.
                Err(error) if exists(error.kind()) => {
                    let found = answered(|| Box::pin(context.get_stream(&name))).await.map_err(silent)?;
                    found.map_err(|error| lost(&error))?
                }
                Err(error) => {
                    return Err(match error.kind() {
                        CreateStreamErrorKind::JetStream(no) if leaderless(&no) => {
                            StreamMismatch::NoLeader(no.to_string())
                        }
                        CreateStreamErrorKind::JetStream(no) => {
                            StreamMismatch::Refused { stream: name.clone(), why: no.to_string() }
                        }
                        _ => lost(&error),
                    });
                }
            }
        }
        Err(error) if missing(error.kind()) => {
            return Err(StreamMismatch::Missing(name));
        }
        Err(error) => {
            return Err(match error.kind() {
                GetStreamErrorKind::JetStream(no) if leaderless(&no) => {
                    StreamMismatch::NoLeader(no.to_string())
                }
                _ => lost(&error),
            });
        }
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

fn leaderless(error: &jetstream::Error) -> bool {
    error.error_code() == ErrorCode::CLUSTER_NOT_AVAILABLE
}

fn silent(_: Elapsed) -> StreamMismatch {
    StreamMismatch::JetStream(format!("no answer in {LIMIT:?}"))
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

/// Refuses a server that is too old for JetStream as it is used here.
///
/// # Errors
///
/// [`StreamMismatch::Server`].
pub fn check_version(link: &Connection) -> Result<(), StreamMismatch> {
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
/// JetStream did not answer in 5 s, or with an error.
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
    let names = names.map_err(|error| match error.err_code {
        NOT_AVAILABLE => StreamMismatch::NoLeader(error.description),
        _ => StreamMismatch::JetStream(error.description),
    })?;
    Ok(names.streams.unwrap_or_default().pop())
}
