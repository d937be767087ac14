//! Checks while the system runs that the streams still have the configuration that correctness needs. A change that a
//! start would refuse is found within seconds, and writes stop, because no promise could be kept. Must not change a
//! stream.

mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::Config;
use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use pbjson_types::Timestamp;
use serde::Deserialize;
use telemetry::{Exposition, Source};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::status::StreamStatus;
use crate::api::{RETRY_PAUSE, Range, ask, told};
use crate::check;
use crate::cluster::{Cluster, Quorum};
use crate::error::StoreError;
use crate::mux::Connection;
use crate::outage::{Evidence, Outage};
use crate::spec::StreamSpec;

/// Interval between two checks.
pub const PAUSE: Duration = Duration::from_secs(1);
/// Time limit for one check.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The known state of the streams. Clones share it. Before the first check, writes are allowed.
#[derive(Clone, Default)]
pub struct Guard(Arc<Inner>);

#[derive(Default)]
struct Inner {
    specs: Vec<StreamSpec>,
    /// Writes are refused.
    closed: AtomicBool,
    /// For some stream it is in doubt whether anything can be stored.
    doubted: AtomicBool,
    state: Mutex<State>,
    lost: watch::Sender<Option<&'static str>>,
}

#[derive(Default)]
struct State {
    streams: BTreeMap<&'static str, StreamStatus>,
    /// Findings of other components, by topic.
    notes: BTreeMap<&'static str, String>,
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Info {
    config: Config,
    state: Range,
    cluster: Option<Cluster>,
    ts: Option<Timestamp>,
}

/// The result of one check.
struct Found {
    config: Config,
    first: u64,
    quorum: Quorum,
}

/// Reads a consumer's state from its leader.
///
/// # Errors
///
/// The stream does not exist ([`StoreError::Unusable`]), the consumer does not or has no leader, or JetStream did not
/// answer by the deadline (all three [`StoreError::Unavailable`]).
pub async fn consumer(
    link: &Connection,
    stream: &str,
    name: &str,
    deadline: Instant,
) -> Result<consumer::Info, StoreError> {
    ask(link, format!("$JS.API.CONSUMER.INFO.{stream}.{name}"), deadline).await
}

impl Guard {
    /// A guard of these streams.
    pub fn new(specs: Vec<StreamSpec>) -> Guard {
        Guard(Arc::new(Inner { specs, ..Inner::default() }))
    }

    /// Checks whether writes to a stream are allowed and could be stored.
    ///
    /// # Errors
    ///
    /// Nothing was written. [`StoreError::Unusable`]: a stream or a consumer is not as it has to be, until an operator
    /// changes it. [`StoreError::Down`]: nothing could be stored now.
    pub fn may_write(&self, stream: &'static str) -> Result<(), StoreError> {
        if self.0.closed.load(Ordering::Relaxed) {
            return Err(StoreError::Unusable(self.findings().join("; ")));
        }
        self.judge(stream, |evidence| evidence.no_write(Instant::now()))
    }

    /// The same, called right before an append: while appends fail fast, one in a while is let through as a trial.
    pub(crate) fn may_append(&self, stream: &'static str) -> Result<(), StoreError> {
        self.may_write(stream)?;
        self.judge(stream, |evidence| evidence.no_append(Instant::now()))
    }

    /// Checks whether a read of a stream could be answered.
    ///
    /// # Errors
    ///
    /// [`StoreError::Down`]: the stream has had no leader, or no answer came for it, for longer than an election takes.
    pub fn may_read(&self, stream: &'static str) -> Result<(), StoreError> {
        self.judge(stream, |evidence| evidence.no_read(Instant::now()))
    }

    fn judge(
        &self,
        stream: &'static str,
        outage: impl FnOnce(&mut Evidence) -> Option<Outage>,
    ) -> Result<(), StoreError> {
        if !self.0.doubted.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.state().streams.get_mut(stream).and_then(|status| outage(&mut status.evidence)) {
            Some(outage) => Err(StoreError::Down(format!("the stream {stream}: {outage}"))),
            None => Ok(()),
        }
    }

    /// Records that an append was stored.
    pub(crate) fn stored(&self, stream: &'static str) {
        if self.0.doubted.load(Ordering::Relaxed) {
            self.learn(stream, Evidence::stored);
        }
    }

    /// Records that an append was refused because the storage is full.
    pub(crate) fn full(&self, stream: &'static str, why: &str) {
        self.learn(stream, |evidence, now| evidence.full(now, why));
    }

    /// Records that an append with enough time was not acknowledged.
    pub(crate) fn unacknowledged(&self, stream: &'static str) {
        self.learn(stream, Evidence::unacknowledged);
    }

    fn learn(&self, stream: &'static str, take: impl FnOnce(&mut Evidence, Instant)) {
        let mut state = self.state();
        take(&mut state.streams.entry(stream).or_default().evidence, Instant::now());
        self.settle(&state);
    }

    /// The required streams in which nothing can be stored now, and why. The outcomes of appends count only for streams that
    /// this process writes to constantly: for others they would be outdated.
    pub fn outages(&self) -> Vec<(&'static str, Outage)> {
        let (state, now) = (self.state(), Instant::now());
        let outage = |spec: &StreamSpec| {
            let evidence = &state.streams.get(spec.name)?.evidence;
            let outage = if spec.written { evidence.outage(now) } else { evidence.quorum_outage(now) };
            Some((spec.name, outage?.clone()))
        };
        self.0.specs.iter().filter(|spec| spec.required).filter_map(outage).collect()
    }

    /// Why nothing can be stored in a required stream: a reason as the health details list it, and a text.
    pub fn troubles(&self) -> Vec<(&'static str, String)> {
        let unfit = self.findings().into_iter().map(|finding| ("stream_unfit", finding));
        let outages = self.outages().into_iter().map(|(stream, outage)| {
            let kind = if outage.full() { "storage_full" } else { "storage_unavailable" };
            (kind, format!("the stream {stream}: {outage}"))
        });
        unfit.chain(outages).collect()
    }

    /// The findings, as texts for an operator.
    pub fn findings(&self) -> Vec<String> {
        let state = self.state();
        let streams = state.streams.values().filter_map(|stream| stream.wrong.clone());
        streams.chain(state.notes.values().cloned()).collect()
    }

    /// Records another component's finding on a topic; `None` clears it.
    pub fn note(&self, about: &'static str, wrong: Option<String>) {
        let mut state = self.state();
        let known = state.notes.get(about).cloned();
        say(known.as_deref(), wrong.as_deref());
        match wrong {
            Some(wrong) => state.notes.insert(about, wrong),
            None => state.notes.remove(about),
        };
        self.settle(&state);
    }

    /// Waits until a pinned stream has been deleted and created again, and returns its name. Only a restart helps.
    pub async fn lost(&self) -> &'static str {
        let mut lost = self.0.lost.subscribe();
        match lost.wait_for(Option::is_some).await.ok().and_then(|lost| *lost) {
            Some(name) => name,
            // `self` owns the sender.
            None => std::future::pending().await,
        }
    }

    /// Pins a stream to this identity. Returns whether it has had no other so far.
    pub fn keep(&self, name: &'static str, identity: String) -> bool {
        let mut state = self.state();
        let known = &mut state.streams.entry(name).or_default().identity;
        *known.get_or_insert_with(|| identity.clone()) == identity
    }

    /// Checks periodically, forever.
    pub async fn run(self, link: Connection) {
        loop {
            let mut again = false;
            if link.connected() {
                again = self.look(&link).await;
            }
            sleep(if again { RETRY_PAUSE } else { PAUSE }).await;
        }
    }

    /// Checks once. Returns whether to check again soon.
    async fn look(&self, link: &Connection) -> bool {
        let deadline = Instant::now() + CHECK_INTERVAL;
        let looks = self.0.specs.iter().map(|spec| spec.name).map(|name| async move {
            let asked = Instant::now();
            let info = ask::<Info>(link, format!("$JS.API.STREAM.INFO.{name}"), deadline).await;
            if let Ok(info) = &info {
                told(link, name, info.ts.as_ref(), asked);
            }
            let quorum = |info: &Info| info.cluster.as_ref().map_or(Quorum::ALONE, Cluster::quorum);
            (
                name,
                info.map(|info| Found {
                    quorum: quorum(&info),
                    first: info.state.first,
                    config: info.config,
                }),
            )
        });
        let found = join_all(looks).await;
        if !link.connected() {
            return false;
        }
        let mut state = self.state();
        let (mut again, mut configs_found) = (false, Vec::new());
        for (needed, (name, found)) in self.0.specs.iter().map(|spec| &spec.config).zip(found) {
            let status = state.streams.entry(name).or_default();
            status.evidence.look(Instant::now(), found.as_ref().ok().map(|found| found.quorum));
            if let Ok(found) = &found {
                status.begins_with(needed, found.first);
            }
            let found = found.map(|found| found.config);
            let wrong = status.take(name, needed, found.as_ref());
            again |= status.missing == 1;
            if status.another {
                self.0.lost.send_if_modified(|lost| lost.replace(name).is_none());
            }
            say(status.wrong.as_deref(), wrong.as_deref());
            status.wrong = wrong;
            configs_found.extend(found.ok());
        }
        self.settle(&state);
        if configs_found.len() == self.0.specs.len() {
            let replicas = self.0.specs.first().map(|spec| spec.config.num_replicas);
            warn(&mut state, check::warnings(&configs_found, replicas));
        }
        again
    }

    fn settle(&self, state: &State) {
        let wrong = state.streams.values().any(|stream| stream.wrong.is_some()) || !state.notes.is_empty();
        self.0.closed.store(wrong, Ordering::Relaxed);
        let doubted = state.streams.values().any(|stream| !stream.evidence.calm());
        self.0.doubted.store(doubted, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

fn say(known: Option<&str>, wrong: Option<&str>) {
    match (known, wrong) {
        (known, Some(wrong)) if known != Some(wrong) => tracing::error!(target: "streams", "{wrong}"),
        (Some(known), None) => tracing::info!(target: "streams", before = known, "resolved"),
        _ => {}
    }
}

/// Logs new durability warnings. Those present from the beginning were logged at start.
fn warn(state: &mut State, warnings: Vec<String>) {
    if let Some(known) = &state.warnings {
        for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
            tracing::warn!(target: "durability", "{warning}");
        }
    }
    state.warnings = Some(warnings);
}

impl Source for Guard {
    fn collect(&self, page: &mut Exposition) {
        let (state, now) = (self.state(), Instant::now());
        for (name, stream) in &state.streams {
            let label = [("stream", *name)];
            let doubt = stream.evidence.quorum_outage(now);
            let fit = stream.wrong.is_none() && doubt != Some(&Outage::Silent);
            let help = "Whether a stream answers and has the configuration that correctness needs.";
            page.flag("jetstream_stream_fit", help, &label, fit);
            let help = "Whether a stream has a leader that hears a majority of its replicas (quorum).";
            page.flag("jetstream_stream_quorum", help, &label, doubt.is_none());
            let refusal = stream.evidence.refusal(now);
            let help = "Whether the last appends to a stream were refused because its storage is full.";
            page.flag("jetstream_stream_full", help, &label, refusal.is_some_and(Outage::full));
            let help = "Whether appends to a stream get no acknowledgement although it has a leader.";
            let unacknowledged = refusal == Some(&Outage::Unacknowledged);
            page.flag("jetstream_stream_unacknowledged", help, &label, unacknowledged);
            if let Some(first) = stream.first {
                let help = "The first sequence of a stream; it grows when messages are removed.";
                page.gauge("jetstream_stream_first_sequence", help, &[("stream", name)], first as f64);
            }
        }
        let help = "Whether writes are refused because a stream or consumer lacks the configuration that correctness needs.";
        page.flag("jetstream_writes_refused", help, &[], self.0.closed.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trial_is_spent_by_the_append_alone_and_one_that_succeeds_ends_the_outage() {
        let guard = Guard::default();
        for _ in 0..12 {
            guard.unacknowledged("TWO");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // A command is admitted, and so is its append.
        assert!(guard.may_write("TWO").is_ok() && guard.may_append("TWO").is_ok());
        assert!(guard.may_write("TWO").is_err() && guard.may_append("TWO").is_err());
        guard.stored("TWO");
        assert!(guard.may_write("TWO").is_ok() && guard.may_append("TWO").is_ok());
    }

    #[test]
    fn a_note_refuses_writes_until_it_is_taken_back() {
        let guard = Guard::default();
        assert!(guard.may_write("ONE").is_ok() && guard.findings().is_empty());
        guard.note("consumer", Some("it is paused".to_owned()));
        assert!(matches!(guard.may_write("ONE"), Err(StoreError::Unusable(why)) if why == "it is paused"));
        assert!(!guard.findings().is_empty());
        guard.note("consumer", None);
        assert!(guard.may_write("ONE").is_ok() && guard.findings().is_empty());
    }
}
