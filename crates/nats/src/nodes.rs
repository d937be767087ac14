//! The NATS servers one by one, as their monitoring ports report: which ones answer, and their JetStream storage. No
//! call may depend on them.

use std::time::Duration;

use futures_util::future::join_all;
use http_client::HttpErrorKind;
use serde::Deserialize;

use crate::monitor::{Monitor, PageError};

/// Time limit for an answer, with connecting.
const LIMIT: Duration = Duration::from_secs(2);
/// The maximum number of servers that are asked.
const MOST: usize = 32;

/// A NATS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its monitoring URL, without secrets.
    pub url: String,
    /// Whether it answers.
    pub condition: Condition,
    /// Its report, if it answers.
    pub report: Option<Report>,
}

/// A server's report on itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// JetStream storage in bytes: used and maximum; `None` without JetStream.
    pub storage: Option<(u64, u64)>,
}

/// Whether a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It answers.
    Up,
    /// It accepts connections but does not answer: the process or its machine is frozen.
    Frozen,
    /// The connection is refused: nothing listens there.
    Refused,
    /// It cannot be reached.
    Unreachable,
    /// The answer is not a monitoring port's.
    Unreadable,
}

#[derive(Deserialize)]
struct Varz {
    server_name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    jetstream: JetStream,
}

#[derive(Default, Deserialize)]
struct JetStream {
    config: Option<Config>,
    stats: Option<Stats>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    max_storage: u64,
}

#[derive(Deserialize)]
struct Stats {
    #[serde(default)]
    storage: u64,
}

/// Asks the servers concurrently.
pub async fn look(monitor: &Monitor) -> Vec<Node> {
    join_all(monitor.urls().iter().take(MOST).map(|url| node(monitor, url))).await
}

async fn node(monitor: &Monitor, url: &str) -> Node {
    let (condition, report) = match monitor.get::<Varz>(url, "varz", LIMIT).await {
        Ok(varz) => (Condition::Up, Some(varz.into())),
        Err(why) => {
            tracing::debug!(url = %cli::url::shown(url), %why, "cannot read a monitoring port");
            (Condition::of(&why), None)
        }
    };
    Node { url: cli::url::shown(url), condition, report }
}

impl Condition {
    fn of(why: &PageError) -> Condition {
        use HttpErrorKind::{Proxy, Refused, Silent, Unreachable, Unresolved};
        match why.kind() {
            Some(Refused) => Condition::Refused,
            Some(Unresolved | Unreachable | Proxy) => Condition::Unreachable,
            Some(Silent) => Condition::Frozen,
            _ => Condition::Unreadable,
        }
    }
}

impl From<Varz> for Report {
    fn from(varz: Varz) -> Report {
        let JetStream { config, stats } = varz.jetstream;
        let storage = stats.zip(config).map(|(stats, config)| (stats.storage, config.max_storage));
        Report { name: varz.server_name, version: varz.version, storage }
    }
}

#[cfg(test)]
mod tests {
    use local_nats::Server;

    use super::*;

    #[tokio::test]
    async fn a_server_that_runs_is_frozen_or_gone_is_told_apart() {
        let mut server = tokio::task::spawn_blocking(Server::start).await.unwrap().unwrap();
        let monitor = Monitor::of(&server.monitor_url(), None);
        let condition = async || look(&monitor).await.remove(0).condition;
        let report = look(&monitor).await.remove(0).report.expect("a report");
        assert!(report.storage.is_some_and(|(used, most)| used < most), "{report:?}");
        server.pause();
        assert_eq!(condition().await, Condition::Frozen);
        server.resume();
        assert_eq!(condition().await, Condition::Up);
        server.kill();
        assert_eq!(condition().await, Condition::Refused);
    }

    #[tokio::test]
    async fn what_is_no_monitoring_url_is_told_as_that() {
        for url in ["ftp://one", "nonsense", "", "http://ann:hush@127.0.0.1:1"] {
            assert_eq!(look(&Monitor::of(url, None)).await.remove(0).condition, Condition::Unreadable);
        }
    }
}
