//! A private Prometheus with the shipped alerts that scrapes every second: which alerts became active, and when. Dead
//! targets are removed from it, as service discovery does. Must not depend on how calls ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use local_nats::spare_port;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::load::since;
use crate::cage::Cage;
use crate::process::{Process, listens};
use crate::soak::plan::Target;
use crate::soak::site::Instance;
use crate::usage::http;

const LOOK: Duration = Duration::from_millis(250);
const LIMIT: Duration = Duration::from_secs(2);
/// Time until all targets are scraped; Prometheus looks for new ones every 5 s.
const START: Duration = Duration::from_secs(60);

/// An alert that was active: its condition held. It fires only after its `for`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Active {
    pub(crate) severity: String,
    /// First and last time it was active, in seconds.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// When it fired for the first time.
    pub(crate) fired: Option<f64>,
    /// Whether it was active at the latest poll.
    pub(crate) now: bool,
}

/// By name.
pub(crate) type Alerts = BTreeMap<String, Active>;

/// Killed when dropped.
pub(crate) struct Prometheus {
    folder: tempfile::TempDir,
    _process: Process,
    port: u16,
    seen: Arc<Mutex<Alerts>>,
    task: Option<AbortOnDropHandle<()>>,
}

impl Prometheus {
    /// Starts Prometheus on these targets, and returns when it has scraped all of them.
    pub(crate) async fn start(
        program: &Path,
        rules: &Path,
        instances: &[Instance],
    ) -> anyhow::Result<Prometheus> {
        let folder = tempfile::tempdir()?;
        let rules = rules.canonicalize().with_context(|| format!("--rules {}", rules.display()))?;
        let at = |name: &str| folder.path().join(name);
        discover(folder.path(), instances)?;
        std::fs::write(at("prometheus.yml"), config(&rules, folder.path()).to_string())?;
        let port = spare_port()?;
        let arguments = [
            format!("--config.file={}", at("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", at("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let program = Some(PathBuf::from(program));
        let process =
            Process::caged(program, &arguments, &at("log"), Cage::default()).context("--prometheus")?;
        listens(port).await?;
        let limit = Instant::now() + START;
        while up(port).await != Some(instances.len()) {
            ensure!(Instant::now() < limit, "Prometheus has not scraped all targets after {START:?}");
            sleep(LOOK).await;
        }
        Ok(Prometheus { folder, _process: process, port, seen: Arc::default(), task: None })
    }

    /// Starts polling the alerts. Times are seconds since `zero`.
    pub(crate) fn watch(&mut self, zero: Instant) {
        let task = tokio::spawn(watch(self.port, zero, Arc::clone(&self.seen)));
        self.task = Some(AbortOnDropHandle::new(task));
    }

    /// Replaces the targets.
    pub(crate) fn discover(&self, instances: &[Instance]) -> anyhow::Result<()> {
        discover(self.folder.path(), instances)
    }

    /// Waits until the condition holds for each of these alerts. Returns those for which it does not in time.
    pub(crate) async fn until(
        &self,
        names: &[&'static str],
        limit: Duration,
        wanted: impl Fn(Option<&Active>) -> bool,
    ) -> Vec<&'static str> {
        let limit = Instant::now() + limit;
        loop {
            let seen = self.seen();
            let left: Vec<_> = names.iter().filter(|name| !wanted(seen.get(**name))).copied().collect();
            if left.is_empty() || Instant::now() >= limit {
                return left;
            }
            sleep(LOOK).await;
        }
    }

    /// Alerts that were active since the fault.
    pub(crate) fn seen(&self) -> Alerts {
        let seen = self.seen.lock();
        seen.iter()
            .filter(|(_, alert)| alert.to >= 0.0)
            .map(|(name, alert)| (name.clone(), alert.clone()))
            .collect()
    }
}

/// How many targets are up.
async fn up(port: u16) -> Option<usize> {
    let (_, body) = http(port, "/api/v1/query?query=count(up%3D%3D1)", LIMIT).await.ok()?;
    let answer: Value = serde_json::from_str(&body).ok()?;
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

/// JSON is YAML.
fn config(rules: &Path, folder: &Path) -> Value {
    let job = |name: &str| {
        json!({
            "job_name": name,
            "file_sd_configs": [{ "files": [folder.join(format!("{name}.json"))], "refresh_interval": "1s" }],
        })
    };
    json!({
        "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
        "rule_files": [rules],
        "scrape_configs": [job("gateway"), job("inventory-worker")],
    })
}

fn discover(folder: &Path, instances: &[Instance]) -> anyhow::Result<()> {
    for (job, gateways) in [("gateway", true), ("inventory-worker", false)] {
        let ours = instances.iter().filter(|one| matches!(one.target, Target::Gateway(_)) == gateways);
        let targets: Vec<String> = ours.map(|one| format!("127.0.0.1:{}", one.http)).collect();
        // Renamed into place, so that Prometheus never reads half a file.
        let (file, new) = (folder.join(format!("{job}.json")), folder.join(format!("{job}.new")));
        std::fs::write(&new, json!([{ "targets": targets }]).to_string())?;
        std::fs::rename(new, file)?;
    }
    Ok(())
}

async fn watch(port: u16, zero: Instant, seen: Arc<Mutex<Alerts>>) {
    loop {
        if let Ok((200, body)) = http(port, "/api/v1/alerts", LIMIT).await
            && let Ok(answer) = serde_json::from_str::<Value>(&body)
        {
            let at = since(zero, Instant::now());
            let mut seen = seen.lock();
            seen.values_mut().for_each(|alert| alert.now = false);
            for alert in answer["data"]["alerts"].as_array().into_iter().flatten() {
                let text = |label: &str| alert["labels"][label].as_str().unwrap_or_default().to_owned();
                let new = || Active { severity: text("severity"), from: at, ..Active::default() };
                let known = seen.entry(text("alertname")).or_insert_with(new);
                (known.to, known.now) = (at, true);
                if alert["state"] == "firing" {
                    known.fired.get_or_insert(at);
                }
            }
        }
        sleep(LOOK).await;
    }
}
