//! How one stream stands: whether it is the one that it has to be, as it has to be. Must never ask anybody.

use async_nats::jetstream::stream::Config;

use crate::fit;
use crate::outage::Evidence;
use crate::store::StoreError;
use crate::streams::{IDENTITY, Unfit};

/// What is known of a stream.
#[derive(Default)]
pub(super) struct Standing {
    /// The one that it has to keep.
    pub(super) identity: Option<String>,
    /// It has had another: what is known of it is worth nothing until the next start.
    pub(super) another: bool,
    /// Looks in a row that found no stream.
    pub(super) missing: u32,
    /// Whether anything can be stored in it.
    pub(super) evidence: Evidence,
    /// What is wrong with it.
    pub(super) wrong: Option<String>,
    /// Its first entry.
    pub(super) first: Option<u64>,
}

impl Standing {
    /// Takes what a look found, and tells what is wrong with the stream now.
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
                Some(format!("the stream {name} was removed and made anew; start this again"))
            }
            Ok(found) => fit::check(needed, found).err().map(|unfit| words(&unfit)),
            Err(_) if self.missing > 1 => Some(format!(
                "the stream {name} does not exist any more: restore it (`gateway restore FOLDER`); \
                 `gateway provision` makes an empty one"
            )),
            // What was known is true until something else is.
            Err(_) => self.wrong.clone(),
        }
    }

    /// Says if entries are gone from a stream of which nobody may take any.
    pub(super) fn begins_with(&mut self, needed: &Config, first: u64) {
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

#[cfg(test)]
mod tests {
    use async_nats::jetstream::stream::DiscardPolicy;

    use super::*;
    use crate::streams::{ORDERS, configs};

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
}
