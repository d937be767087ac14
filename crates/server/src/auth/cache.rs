//! A cache of verified tokens, so that a signature is verified once, not with each call. Bounded: the least recently
//! used half is dropped at once. Stores digests, never tokens.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::digest;
use tokio::time::Instant;

use super::Caller;

/// Capacity for a whole gateway, in tokens.
const TOKENS: usize = 16_384;

/// The digest of a token.
pub(super) type Mark = [u8; digest::SHA256_OUTPUT_LEN];

/// Callers that were verified with keys of type `K`.
pub(super) struct Cache<K> {
    halves: Mutex<Halves<K>>,
    half: usize,
}

struct Halves<K> {
    young: HashMap<Mark, Entry<K>>,
    old: HashMap<Mark, Entry<K>>,
}

struct Entry<K> {
    caller: Arc<Caller>,
    until: Instant,
    /// The keys that verified the token: other keys require another verification.
    keys: Arc<K>,
}

/// The digest of this token, as it is read with the catalog of this number.
pub(super) fn mark(token: &str, catalog: u64) -> Mark {
    let mut digest = digest::Context::new(&digest::SHA256);
    digest.update(&catalog.to_le_bytes());
    digest.update(token.as_bytes());
    let mut mark = [0; digest::SHA256_OUTPUT_LEN];
    mark.copy_from_slice(digest.finish().as_ref());
    mark
}

impl<K> Default for Cache<K> {
    fn default() -> Cache<K> {
        Cache::of(TOKENS)
    }
}

impl<K> Cache<K> {
    fn of(most: usize) -> Cache<K> {
        let halves = Halves { young: HashMap::new(), old: HashMap::new() };
        Cache { halves: Mutex::new(halves), half: most / 2 }
    }

    /// The caller of a token that was verified with current keys, and is still valid.
    pub(super) fn get(
        &self,
        mark: &Mark,
        now: Instant,
        current: impl Fn(&Arc<K>) -> bool,
    ) -> Option<Arc<Caller>> {
        let mut halves = self.halves.lock();
        let good = |entry: &Entry<K>| now < entry.until && current(&entry.keys);
        if let Some(entry) = halves.young.get(mark) {
            return good(entry).then(|| entry.caller.clone());
        }
        let entry = halves.old.remove(mark).filter(good)?;
        let caller = entry.caller.clone();
        halves.add(*mark, entry, self.half);
        Some(caller)
    }

    /// Stores a caller until the token expires.
    pub(super) fn put(&self, mark: Mark, caller: Arc<Caller>, until: Instant, keys: Arc<K>) {
        let mut halves = self.halves.lock();
        halves.add(mark, Entry { caller, until, keys }, self.half);
    }
}

impl<K> Halves<K> {
    fn add(&mut self, mark: Mark, entry: Entry<K>, half: usize) {
        if self.young.len() >= half && !self.young.contains_key(&mark) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(mark, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::Scopes;
    use crate::auth::quota::Quotas;

    fn caller(name: &str) -> Arc<Caller> {
        Arc::new(Caller {
            principal: name.into(),
            tenant: bridge::Tenancy::Unnamed,
            scopes: Scopes::default(),
            account: Quotas::new(1, 0).of(name),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_is_remembered_until_the_token_ends_or_the_keys_change() {
        let (cache, keys) = (Cache::default(), Arc::new(()));
        let now = Instant::now();
        cache.put(mark("x", 0), caller("ann"), now + Duration::from_secs(5), keys.clone());
        let get = |token: &str, now, good| {
            cache.get(&mark(token, 0), now, |_| good).map(|caller| caller.principal.clone())
        };
        assert_eq!(get("x", now, true).as_deref(), Some("ann"));
        assert_eq!(get("y", now, true), None);
        assert_eq!(get("x", now, false), None);
        assert_eq!(get("x", now + Duration::from_secs(5), true), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded_and_keeps_what_is_used() {
        let (cache, keys) = (Cache::of(20), Arc::new(()));
        let now = Instant::now();
        let until = now + Duration::from_secs(5);
        cache.put(mark("used", 0), caller("ann"), until, keys.clone());
        for number in 0..100 {
            cache.put(mark(&number.to_string(), 0), caller("bob"), until, keys.clone());
            assert!(cache.get(&mark("used", 0), now, |_| true).is_some());
            let halves = cache.halves.lock();
            assert!(halves.young.len() + halves.old.len() <= 20);
        }
        assert!(cache.get(&mark("50", 0), now, |_| true).is_none());
    }
}
