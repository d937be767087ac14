//! Where the public keys of tokens come from: a file that is read again when it changes, or a server that is asked now
//! and then, and at once when a token names a key that is not known. What was had last and made sense stays in use.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use jsonwebtoken::Algorithm;
use ring::digest;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::fetch::Fetch;
use super::jwt::Proof;
use super::keyset::KeySet;
use super::{Unknown, Upkeep};
use crate::config::access::{Access as Config, Place};
use crate::fresh::{Fresh, Kept};
use crate::reload::{Contents, Reload};
use crate::share::{Shares, Slot};

/// What a fetch may take.
const FETCH: Duration = Duration::from_secs(5);
/// Between two fetches, whatever keys tokens name.
const LEAST: Duration = Duration::from_secs(10);
/// Calls that wait for a fetch: tokens that name a key are made up as easily as not.
const WAITING: usize = 256;

/// The keys.
pub(super) struct Keys {
    latest: Kept<Proof>,
    /// Of keys that are fetched.
    wishes: Option<Arc<Wishes>>,
}

/// What calls and the task that fetches tell each other.
struct Wishes {
    wish: Notify,
    /// Fetches that have ended.
    ended: watch::Sender<u64>,
    last: Mutex<Last>,
    places: Semaphore,
}

/// The last fetch.
#[derive(Clone, Copy)]
struct Last {
    began: Instant,
    under_way: bool,
}

impl Keys {
    /// Reads or fetches them for the first time. A server that does not answer is asked again later: it may start after
    /// us. A file has to be there.
    pub(super) async fn open(place: &Place, config: &Config, upkeep: &mut Upkeep) -> anyhow::Result<Keys> {
        let url = match place {
            Place::Url(url) => url.clone(),
            Place::File(path) => {
                let of_file = |contents: &[Contents]| {
                    KeySet::read(contents.first().map(|file| file.as_slice()).unwrap_or_default())
                        .map(Proof::Keys)
                };
                let keys = Reload::open("the tokens' keys (GW_JWT_JWKS)", vec![path.clone()], of_file)?;
                let latest = upkeep.guard(keys.within("jwks", config.max_stale()));
                return Ok(Keys { latest, wishes: None });
            }
        };
        let refresh = config.jwt_jwks_refresh;
        // It is late only once the next fetch is.
        let limit = config.max_stale().map(|limit| limit + refresh.mul_f64(1.1) + FETCH);
        let fresh = Fresh::new("jwks", limit);
        let fetch = Fetch::new(&url, config.jwt_jwks_ca.as_deref())?;
        let wishes = Arc::new(Wishes::new());
        let latest = watch::Sender::new(Arc::new(Proof::Keys(KeySet::default())));
        let mut fetcher = Fetcher {
            url,
            fetch,
            wishes: wishes.clone(),
            latest,
            seen: None,
            refresh,
            fresh: fresh.clone(),
            failed: false,
        };
        upkeep.sources.0.push(fresh.clone());
        let keys = Keys { latest: Kept::new(fetcher.latest.subscribe(), fresh), wishes: Some(wishes) };
        fetcher.once().await;
        upkeep.tasks.push(Box::pin(fetcher.run()));
        Ok(keys)
    }

    /// Keys among which is the one for a token. `shares` are those of the connection that it came by.
    pub(super) async fn with(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        shares: Option<&Arc<Shares>>,
    ) -> Result<Arc<Proof>, Unknown> {
        let look = || {
            let latest = self.latest.get()?;
            match &*latest {
                Proof::Keys(keys) if keys.find(id, algorithm).is_some() => Ok(latest),
                Proof::Keys(keys) if keys.len() == 0 => Err(Unknown::NoKeysYet),
                _ => Err(Unknown::Key),
            }
        };
        match (look(), &self.wishes) {
            (Err(unknown), Some(wishes)) => match wishes.granted(shares).await {
                Some(true) => look(),
                Some(false) => Err(unknown),
                // The key may be good: nobody can say now.
                None => Err(Unknown::Busy),
            },
            (found, _) => found,
        }
    }

    /// Whether these are the ones in use.
    pub(super) fn are(&self, proof: &Arc<Proof>) -> bool {
        self.latest.is(proof)
    }
}

impl Wishes {
    fn new() -> Wishes {
        Wishes {
            wish: Notify::new(),
            ended: watch::Sender::new(0),
            last: Mutex::new(Last { began: Instant::now(), under_way: true }),
            places: Semaphore::new(WAITING),
        }
    }

    /// Wishes for a fetch, and waits for its end. False where none may be made now; nothing where too many wait. Nobody is
    /// known yet, so a connection has a share: as many places as it leaves free.
    async fn granted(&self, shares: Option<&Arc<Shares>>) -> Option<bool> {
        let mut ended = self.ended.subscribe();
        let last = *self.last();
        if !last.under_way && last.began.elapsed() < LEAST {
            return Some(false);
        }
        let _share = match shares {
            Some(shares) => Some(shares.take(Slot::KEYS, self.places.available_permits())?),
            None => None,
        };
        let _place = self.places.try_acquire().ok()?;
        if !last.under_way {
            self.wish.notify_one();
        }
        Some(matches!(timeout(2 * FETCH, ended.changed()).await, Ok(Ok(()))))
    }

    fn begin(&self) {
        *self.last() = Last { began: Instant::now(), under_way: true };
    }

    fn end(&self) {
        self.last().under_way = false;
        self.ended.send_modify(|ended| *ended += 1);
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        // Nothing panics while it is held.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that fetches.
struct Fetcher {
    url: Uri,
    fetch: Fetch,
    wishes: Arc<Wishes>,
    latest: watch::Sender<Arc<Proof>>,
    seen: Option<digest::Digest>,
    refresh: Duration,
    fresh: Fresh,
    /// Whether the last fetch was.
    failed: bool,
}

impl Fetcher {
    async fn run(mut self) {
        loop {
            let began = self.wishes.last().began;
            let known = self.seen.is_some() && !self.failed;
            // At other times than the other gateways.
            let pause = if known { self.refresh.mul_f64(0.9 + fraction() / 5.0) } else { LEAST };
            tokio::select! {
                () = sleep_until(began + pause) => {}
                () = self.wishes.wish.notified() => {}
            }
            // A wish may be older than the last fetch.
            sleep_until(began + LEAST).await;
            self.once().await;
        }
    }

    async fn once(&mut self) {
        self.wishes.begin();
        let fetched = timeout(FETCH, self.fetch.get()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {FETCH:?}")));
        let taken = fetched.and_then(|json| self.take(&json));
        self.failed = taken.is_err();
        if let Err(error) = taken {
            let kept = self.seen.is_some() && !self.fresh.over();
            let age = self.fresh.age().as_secs();
            tracing::warn!(url = %self.url, error = format!("{error:#}"), kept, age, "the tokens' keys (JWKS) were not fetched");
        } else {
            self.fresh.confirm();
        }
        self.wishes.end();
    }

    fn take(&mut self, json: &[u8]) -> anyhow::Result<()> {
        let seen = digest::digest(&digest::SHA256, json);
        if self.seen.as_ref().is_some_and(|before| before.as_ref() == seen.as_ref()) {
            return Ok(());
        }
        let keys = KeySet::read(json)?;
        tracing::info!(url = %self.url, keys = keys.len(), "the tokens' keys (JWKS) fetched");
        self.latest.send_replace(Arc::new(Proof::Keys(keys)));
        self.seen = Some(seen);
        Ok(())
    }
}

/// From 0 to 1.
fn fraction() -> f64 {
    link::inbox::jitter(1_000) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_too_many_that_waits_for_a_key_is_not_told_that_its_key_is_unknown() {
        let wishes = Arc::new(Wishes::new());
        let waits = |_| {
            let wishes = wishes.clone();
            tokio::spawn(async move { wishes.granted(None).await })
        };
        let waiting: Vec<_> = (0..WAITING).map(waits).collect();
        while wishes.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(wishes.granted(None).await, None);
        wishes.end();
        for granted in join_all(waiting).await {
            assert_eq!(granted.unwrap(), Some(true));
        }
        assert_eq!(wishes.granted(None).await, Some(false), "there was a fetch just now");
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_that_waits_for_keys_leaves_places_to_others() {
        let wishes = Arc::new(Wishes::new());
        let waits = |shares: &Arc<Shares>| {
            let (wishes, shares) = (wishes.clone(), shares.clone());
            tokio::spawn(async move { wishes.granted(Some(&shares)).await })
        };
        let (greedy, other) = (Shares::of_connection(), Shares::of_connection());
        let flood: Vec<_> = (0..2 * WAITING).map(|_| waits(&greedy)).collect();
        while flood.iter().filter(|call| call.is_finished()).count() < 2 * WAITING - WAITING / 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(wishes.places.available_permits(), WAITING / 2);
        let call = waits(&other);
        while wishes.places.available_permits() == WAITING / 2 {
            tokio::task::yield_now().await;
        }
        wishes.end();
        assert_eq!(call.await.unwrap(), Some(true));
        let granted = join_all(flood).await.into_iter().filter(|call| *call.as_ref().unwrap() == Some(true));
        assert_eq!(granted.count(), WAITING / 2);
        assert_eq!(greedy.held(Slot::KEYS), 0, "they are given back");
    }
}
