//! Whether the streams are still what they have to be, while the system runs. What is refused at start is found here
//! within seconds, and then nothing more is written, because nothing more could be promised. Must never change a stream.

mod standing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::Config;
use futures_util::future::join_all;
use pbjson_types::Timestamp;
use serde::Deserialize;
use telemetry::{Page, Source};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::standing::Standing;
use crate::cluster::{Cluster, Quorum};
use crate::fit;
use crate::inbox::Link;
use crate::outage::{Evidence, Outage};
use crate::store::{AGAIN, Range, StoreError, ask, told};
use crate::streams::{ALL, INVENTORY, ORDERS, configs};

/// Between two looks.
pub const PAUSE: Duration = Duration::from_secs(1);
/// How long a look may take.
pub const LOOK: Duration = Duration::from_secs(2);
/// What is known of the streams. Clones share it. Until it runs, all is well.
#[derive(Clone, Default)]
pub struct Guard(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Nothing is to be written.
    closed: AtomicBool,
    /// Whether anything can be stored is in doubt for a stream.
    doubted: AtomicBool,
    state: Mutex<State>,
    lost: watch::Sender<Option<&'static str>>,
}

#[derive(Default)]
struct State {
    streams: BTreeMap<&'static str, Standing>,
    /// What others found, by what it is about.
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

/// What a look found.
struct Found {
    config: Config,
    first: u64,
    quorum: Quorum,
}

/// A consumer of a stream, as its leader has it.
///
/// # Errors
///
/// There is none, or JetStream did not say.
pub async fn consumer(
    link: &Link,
    stream: &str,
    name: &str,
    deadline: Instant,
) -> Result<consumer::Info, StoreError> {
    ask(link, format!("$JS.API.CONSUMER.INFO.{stream}.{name}"), deadline).await
}

impl Guard {
    /// Whether something may be written to a stream, and could be stored.
    ///
    /// # Errors
    ///
    /// What is wrong; nothing was written.
    pub fn may_write(&self, stream: &'static str) -> Result<(), StoreError> {
        if self.0.closed.load(Ordering::Relaxed) {
            return Err(StoreError::Unusable(self.findings().join("; ")));
        }
        self.judge(stream, |evidence| evidence.no_write(Instant::now()))
    }

    /// The same, asked by whoever then appends: where appends are answered at once, one in a while is let through.
    pub(crate) fn may_append(&self, stream: &'static str) -> Result<(), StoreError> {
        self.may_write(stream)?;
        self.judge(stream, |evidence| evidence.no_append(Instant::now()))
    }

    /// Whether somebody could answer a read of a stream.
    ///
    /// # Errors
    ///
    /// Why nobody can.
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
        match self.state().streams.get_mut(stream).and_then(|standing| outage(&mut standing.evidence)) {
            Some(outage) => Err(StoreError::Down(format!("the stream {stream}: {outage}"))),
            None => Ok(()),
        }
    }

    /// An append was stored.
    pub(crate) fn stored(&self, stream: &'static str) {
        if self.0.doubted.load(Ordering::Relaxed) {
            self.learn(stream, Evidence::stored);
        }
    }

    /// An append found no room.
    pub(crate) fn full(&self, stream: &'static str, why: &str) {
        self.learn(stream, |evidence, now| evidence.full(now, why));
    }

    /// An append that had enough time was not acknowledged.
    pub(crate) fn unacknowledged(&self, stream: &'static str) {
        self.learn(stream, Evidence::unacknowledged);
    }

    fn learn(&self, stream: &'static str, take: impl FnOnce(&mut Evidence, Instant)) {
        let mut state = self.state();
        take(&mut state.streams.entry(stream).or_default().evidence, Instant::now());
        self.settle(&state);
    }

    /// The streams in which nothing can be stored now, of those that are needed for an order, and why. What appends came to
    /// counts for those that are `written` all the time: of another one it would be long out of date.
    pub fn outages(&self, written: &[&'static str]) -> Vec<(&'static str, Outage)> {
        let (state, now) = (self.state(), Instant::now());
        let outage = |name| {
            let evidence = &state.streams.get(name)?.evidence;
            let outage =
                if written.contains(&name) { evidence.outage(now) } else { evidence.quorum_outage(now) };
            Some((name, outage?.clone()))
        };
        [ORDERS, INVENTORY].into_iter().filter_map(outage).collect()
    }

    /// Why nothing that an order needs can be stored, for somebody who writes to these streams: a kind, as
    /// grpc.health.v1's neighbours know it, and words.
    pub fn troubles(&self, written: &[&'static str]) -> Vec<(&'static str, String)> {
        let unfit = self.findings().into_iter().map(|finding| ("stream_unfit", finding));
        let outages = self.outages(written).into_iter().map(|(stream, outage)| {
            let kind = if outage.full() { "storage_full" } else { "storage_unavailable" };
            (kind, format!("the stream {stream}: {outage}"))
        });
        unfit.chain(outages).collect()
    }

    /// What is wrong, in words for an operator.
    pub fn findings(&self) -> Vec<String> {
        let state = self.state();
        let streams = state.streams.values().filter_map(|stream| stream.wrong.clone());
        streams.chain(state.notes.values().cloned()).collect()
    }

    /// Notes what somebody else found about something, or that it is well again.
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

    /// Returns when a stream that had to stay was removed and made anew: its name. Only a start can mend that.
    pub async fn lost(&self) -> &'static str {
        let mut lost = self.0.lost.subscribe();
        match lost.wait_for(Option::is_some).await.ok().and_then(|lost| *lost) {
            Some(name) => name,
            // The sender lives in `self`.
            None => std::future::pending().await,
        }
    }

    /// A stream has to stay the one with this identity. Whether it has been that so far.
    pub fn keep(&self, name: &'static str, identity: String) -> bool {
        let mut state = self.state();
        let known = &mut state.streams.entry(name).or_default().identity;
        *known.get_or_insert_with(|| identity.clone()) == identity
    }

    /// Looks for ever. `replicas` is what streams are to have.
    pub async fn run(self, link: Link, replicas: usize) {
        loop {
            let mut again = false;
            if link.connected() {
                again = self.look(&link, replicas).await;
            }
            sleep(if again { AGAIN } else { PAUSE }).await;
        }
    }

    /// Looks once; whether it is to be looked again soon.
    async fn look(&self, link: &Link, replicas: usize) -> bool {
        let deadline = Instant::now() + LOOK;
        let looks = ALL.map(|name| async move {
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
        for (needed, (name, found)) in configs(replicas).iter().zip(found) {
            let standing = state.streams.entry(name).or_default();
            standing.evidence.look(Instant::now(), found.as_ref().ok().map(|found| found.quorum));
            if let Ok(found) = &found {
                standing.begins_with(needed, found.first);
            }
            let found = found.map(|found| found.config);
            let wrong = standing.take(name, needed, found.as_ref());
            again |= standing.missing == 1;
            if standing.another {
                self.0.lost.send_if_modified(|lost| lost.replace(name).is_none());
            }
            say(standing.wrong.as_deref(), wrong.as_deref());
            standing.wrong = wrong;
            configs_found.extend(found.ok());
        }
        self.settle(&state);
        if configs_found.len() == ALL.len() {
            warn(&mut state, fit::warnings(&configs_found, Some(replicas)));
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
        // Nothing panics while it is held.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn say(known: Option<&str>, wrong: Option<&str>) {
    match (known, wrong) {
        (known, Some(wrong)) if known != Some(wrong) => tracing::error!(target: "streams", "{wrong}"),
        (Some(known), None) => tracing::info!(target: "streams", before = known, "this is mended"),
        _ => {}
    }
}

/// Says what has become less durable. What was so from the beginning was said at the start.
fn warn(state: &mut State, warnings: Vec<String>) {
    if let Some(known) = &state.warnings {
        for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
            tracing::warn!(target: "durability", "{warning}");
        }
    }
    state.warnings = Some(warnings);
}

impl Source for Guard {
    fn tell(&self, page: &mut Page) {
        let (state, now) = (self.state(), Instant::now());
        for (name, stream) in &state.streams {
            let label = [("stream", *name)];
            let doubt = stream.evidence.quorum_outage(now);
            let fit = stream.wrong.is_none() && doubt != Some(&Outage::Silent);
            let help = "Whether a stream answers, and is as correctness needs it.";
            page.flag("jetstream_stream_fit", help, &label, fit);
            let help = "Whether a stream has a leader that hears a majority of its replicas.";
            page.flag("jetstream_stream_quorum", help, &label, doubt.is_none());
            let refusal = stream.evidence.refusal(now);
            let help = "Whether appends are refused for want of room, as the last of them said.";
            page.flag("jetstream_stream_full", help, &label, refusal.is_some_and(Outage::full));
            let help = "Whether appends get no acknowledgement although there is a leader.";
            let unacknowledged = refusal == Some(&Outage::Unacknowledged);
            page.flag("jetstream_stream_unacknowledged", help, &label, unacknowledged);
            if let Some(first) = stream.first {
                let help = "The first entry of a stream: that of ORDERS never changes.";
                page.level("jetstream_stream_first_sequence", help, &[("stream", name)], first as f64);
            }
        }
        let help =
            "Whether nothing is written because a stream or its consumer is not as correctness needs it.";
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
            guard.unacknowledged(INVENTORY);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // A command is let in, and its append as well.
        assert!(guard.may_write(INVENTORY).is_ok() && guard.may_append(INVENTORY).is_ok());
        assert!(guard.may_write(INVENTORY).is_err() && guard.may_append(INVENTORY).is_err());
        guard.stored(INVENTORY);
        assert!(guard.may_write(INVENTORY).is_ok() && guard.may_append(INVENTORY).is_ok());
    }

    #[test]
    fn a_note_refuses_writes_until_it_is_taken_back() {
        let guard = Guard::default();
        assert!(guard.may_write(ORDERS).is_ok() && guard.troubles(&ALL).is_empty());
        guard.note("consumer", Some("it is paused".to_owned()));
        assert!(matches!(guard.may_write(ORDERS), Err(StoreError::Unusable(why)) if why == "it is paused"));
        assert!(!guard.troubles(&ALL).is_empty());
        guard.note("consumer", None);
        assert!(guard.may_write(ORDERS).is_ok() && guard.troubles(&ALL).is_empty());
    }
}
