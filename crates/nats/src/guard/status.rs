//! The state of one stream: whether it is the expected stream, with the needed configuration. Must do no I/O.

use async_nats::jetstream::stream::Config;

use crate::check;
use crate::error::StoreError;
use crate::outage::Evidence;
use crate::spec::{IDENTITY, StreamMismatch};

/// What is known of a stream.
#[derive(Default)]
pub(super) struct StreamStatus {
    /// The identity that it is pinned to.
    pub(super) identity: Option<String>,
    /// It has had another identity: all knowledge of it is void until the next start.
    pub(super) another: bool,
    /// Consecutive checks that found no stream.
    pub(super) missing: u32,
    /// Whether anything can be stored in it.
    pub(super) evidence: Evidence,
    /// The finding, if there is one.
    pub(super) wrong: Option<String>,
    /// Its first sequence.
    pub(super) first: Option<u64>,
}

impl StreamStatus {
    /// Applies the result of a check, and returns the finding, if there is one.
    pub(super) fn take(
        &mut self,
        name: &str,
        needed: &Config,
        found: Result<&Config, &StoreError>,
    ) -> Option<String> {
        let missing = matches!(found, Err(StoreError::Unusable(_)));
        self.missing = if missing { self.missing.saturating_add(1) } else { 0 };
        self.another |= self.is_another(found.ok());
        match found {
            _ if self.another => {
                Some(format!("the stream {name} was deleted and created again; restart this process"))
            }
            Ok(found) => check::check(needed, found).err().map(|unfit| words(&unfit)),
            Err(_) if self.missing > 1 => Some(format!(
                "the stream {name} no longer exists: restore it (`gateway restore FOLDER`); \
                 `gateway provision` creates an empty one"
            )),
            // The last finding holds until another result replaces it.
            Err(_) => self.wrong.clone(),
        }
    }

    /// Logs if entries are missing from the beginning of a stream that nobody may remove from.
    pub(super) fn begins_with(&mut self, needed: &Config, first: u64) {
        let before = self.first.replace(first).unwrap_or(first);
        if needed.deny_purge && first > before.max(1) {
            let stream = &needed.name;
            tracing::error!(target: "streams", stream, before, first, "entries are missing at the start of the stream");
        }
    }

    /// Whether the stream is not the one that was expected.
    fn is_another(&self, found: Option<&Config>) -> bool {
        let identity = found.and_then(|found| found.metadata.get(IDENTITY));
        self.identity.as_ref().zip(identity).is_some_and(|(known, found)| known != found)
    }
}

fn words(unfit: &StreamMismatch) -> String {
    match unfit {
        StreamMismatch::Differs { stream, field, found, needed } => format!(
            "the stream {stream} has {field}: {found}, but needs {needed}; writes are refused until it is changed \
             back (`nats stream edit {stream}`)"
        ),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::stream::DiscardPolicy;

    use super::*;
    use crate::spec::samples;

    #[test]
    fn a_stream_is_missed_only_when_it_is_not_found_twice() {
        let [needed, ..] = samples(1);
        let mut status = StreamStatus::default();
        let gone = StoreError::Unusable("stream not found".to_owned());
        let away = StoreError::Unavailable("no leader".to_owned());
        assert_eq!(status.take("ONE", &needed, Ok(&needed)), None);
        for error in [&away, &away, &away, &gone] {
            assert_eq!(status.take("ONE", &needed, Err(error)), None);
        }
        assert!(status.take("ONE", &needed, Err(&gone)).unwrap().contains("ONE no longer exists"));
        let found = Config { discard: DiscardPolicy::Old, ..needed.clone() };
        assert!(status.take("ONE", &needed, Ok(&found)).unwrap().contains("discard: Old"));
        assert_eq!(status.take("ONE", &needed, Ok(&needed)), None);
    }

    #[test]
    fn a_stream_that_was_made_anew_is_never_the_one_that_was_known() {
        let [needed, ..] = samples(1);
        let [other, ..] = samples(1);
        let mut status =
            StreamStatus { identity: needed.metadata.get(IDENTITY).cloned(), ..StreamStatus::default() };
        assert_eq!(status.take("ONE", &needed, Ok(&needed)), None);
        for found in [&other, &needed] {
            assert!(status.take("ONE", &needed, Ok(found)).unwrap().contains("created again"));
        }
    }
}
