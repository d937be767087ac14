//! Whether the streams are still what they have to be, while the system runs. What is refused at start is found here
//! within seconds, and then nothing more is written, because nothing more could be promised. Must never change a stream.

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

use crate::fit;
use crate::inbox::Link;
use crate::store::{AGAIN, Range, StoreError, ask, told};
use crate::streams::{ALL, IDENTITY, INVENTORY, ORDERS, Unfit, configs};

/// Between two looks.
pub const PAUSE: Duration = Duration::from_secs(1);
/// How long a look may take.
pub const LOOK: Duration = Duration::from_secs(2);
/// Looks in a row that find no answer: fewer are an election that is quickly over.
const PATIENCE: u32 = 2;

/// What is known of the streams. Clones share it. Until it runs, all is well.
#[derive(Clone, Default)]
pub struct Guard(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Nothing is to be written.
    closed: AtomicBool,
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

#[derive(Default)]
struct Standing {
    /// The one that it has to keep.
    identity: Option<String>,
    /// It has had another: what is known of it is worth nothing until the next start.
    another: bool,
    /// Looks in a row that found no stream, and no answer.
    missing: u32,
    silent: u32,
    /// What is wrong with it.
    wrong: Option<String>,
    /// Its first entry.
    first: Option<u64>,
}

#[derive(Deserialize)]
struct Info {
    config: Config,
    state: Range,
    ts: Option<Timestamp>,
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
    /// Whether something may be written.
    ///
    /// # Errors
    ///
    /// What is wrong; nothing was written.
    pub fn check(&self) -> Result<(), StoreError> {
        if !self.0.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(StoreError::Unusable(self.findings().join("; ")))
    }

    /// Whether all is as it has to be, and what is needed for writing answers.
    pub fn up(&self) -> bool {
        let state = self.state();
        let answers = |name| state.streams.get(name).is_none_or(|stream| stream.silent < PATIENCE);
        !self.0.closed.load(Ordering::Relaxed) && [ORDERS, INVENTORY].into_iter().all(answers)
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
            (name, info.map(|info| (info.config, info.state.first)))
        });
        let found = join_all(looks).await;
        if !link.connected() {
            return false;
        }
        let mut state = self.state();
        let (mut again, mut configs_found) = (false, Vec::new());
        for (needed, (name, found)) in configs(replicas).iter().zip(found) {
            let standing = state.streams.entry(name).or_default();
            if let Ok((_, first)) = &found {
                standing.begins_with(needed, *first);
            }
            let found = found.map(|(config, _)| config);
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
            warn(&mut state, fit::warnings(&configs_found, replicas));
        }
        again
    }

    fn settle(&self, state: &State) {
        let wrong = state.streams.values().any(|stream| stream.wrong.is_some()) || !state.notes.is_empty();
        self.0.closed.store(wrong, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    /// Takes what a look found, and tells what is wrong with the stream now.
    fn take(&mut self, name: &str, needed: &Config, found: Result<&Config, &StoreError>) -> Option<String> {
        let missing = matches!(found, Err(StoreError::Unusable(_)));
        self.missing = if missing { self.missing.saturating_add(1) } else { 0 };
        self.silent = if found.is_err() { self.silent.saturating_add(1) } else { 0 };
        self.another |= self.is_another(found.ok());
        match found {
            _ if self.another => {
                Some(format!("the stream {name} was removed and made anew; start this again"))
            }
            Ok(found) => fit::check(needed, found).err().map(|unfit| words(&unfit)),
            Err(_) if self.missing > 1 => Some(format!(
                "the stream {name} does not exist any more: restore it (`gateway restore`), or make it anew (`gateway \
                 provision`)"
            )),
            // What was known is true until something else is.
            Err(_) => self.wrong.clone(),
        }
    }

    /// Says if entries are gone from a stream of which nobody may take any.
    fn begins_with(&mut self, needed: &Config, first: u64) {
        let before = self.first.replace(first).unwrap_or(first);
        if needed.deny_purge && first > before.max(1) {
            let stream = &needed.name;
            tracing::error!(target: "streams", stream, before, first, "entries at the beginning of the stream are gone");
        }
    }

    /// Whether the stream is another than the one that it has to be.
    fn is_another(&self, found: Option<&Config>) -> bool {
        let identity = found.and_then(|found| found.metadata.get(IDENTITY));
        self.identity.as_ref().zip(identity).is_some_and(|(known, found)| known != found)
    }
}

fn words(unfit: &Unfit) -> String {
    match unfit {
        Unfit::Differs { stream, field, found, needed } => format!(
            "the stream {stream} has {field}: {found}, and needs {needed}; nothing is written until it is changed back \
             (`nats stream edit {stream}`)"
        ),
        other => other.to_string(),
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
        let state = self.state();
        for (name, stream) in &state.streams {
            let fit = stream.wrong.is_none() && stream.silent < PATIENCE;
            let help = "Whether a stream answers, and is as correctness needs it.";
            page.flag("jetstream_stream_fit", help, &[("stream", name)], fit);
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
    use async_nats::jetstream::stream::DiscardPolicy;

    use super::*;

    #[test]
    fn a_stream_is_missed_only_when_it_is_not_found_twice() {
        let [needed, ..] = configs(1);
        let mut standing = Standing::default();
        let gone = StoreError::Unusable("stream not found".to_owned());
        let away = StoreError::Unavailable("no leader".to_owned());
        assert_eq!(standing.take(ORDERS, &needed, Ok(&needed)), None);
        for error in [&away, &away, &away, &gone] {
            assert_eq!(standing.take(ORDERS, &needed, Err(error)), None);
        }
        assert!(standing.take(ORDERS, &needed, Err(&gone)).unwrap().contains("ORDERS does not exist"));
        let found = Config { discard: DiscardPolicy::Old, ..needed.clone() };
        assert!(standing.take(ORDERS, &needed, Ok(&found)).unwrap().contains("discard: Old"));
        assert_eq!(standing.take(ORDERS, &needed, Ok(&needed)), None);
    }

    #[test]
    fn a_stream_that_was_made_anew_is_never_the_one_that_was_known() {
        let [needed, ..] = configs(1);
        let [other, ..] = configs(1);
        let mut standing =
            Standing { identity: needed.metadata.get(IDENTITY).cloned(), ..Standing::default() };
        assert_eq!(standing.take(ORDERS, &needed, Ok(&needed)), None);
        for found in [&other, &needed] {
            assert!(standing.take(ORDERS, &needed, Ok(found)).unwrap().contains("made anew"));
        }
    }

    #[test]
    fn a_note_refuses_writes_until_it_is_taken_back() {
        let guard = Guard::default();
        assert!(guard.check().is_ok() && guard.up());
        guard.note("consumer", Some("it is paused".to_owned()));
        assert!(matches!(guard.check(), Err(StoreError::Unusable(why)) if why == "it is paused"));
        assert!(!guard.up());
        guard.note("consumer", None);
        assert!(guard.check().is_ok() && guard.up());
    }
}
