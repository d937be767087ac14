//! The source of the public keys for tokens: a file that is reloaded when it changes, or a URL that is fetched at
//! intervals, and immediately when a token names an unknown key. The last valid version stays in use.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use ring::digest;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::fetch::{Fetch, LIMITS};
use super::keyset::{KeySet, VerifiedToken};
use super::{AuthError, Upkeep};
use crate::config::access::{Access as Config, Place};
use crate::fresh::{Fresh, Kept};
use crate::reload::{Contents, Reload};
use bridge::share::{ShareKind, Shares};

/// Timeout of a fetch.
const FETCH: Duration = LIMITS.whole;
/// Minimum interval between two fetches, whatever keys tokens name.
const LEAST: Duration = Duration::from_secs(10);
/// Maximum number of calls that wait for a fetch: anyone can make up tokens with unknown keys.
const WAITING: usize = 256;

/// The public keys of tokens.
pub(super) struct Keys {
    latest: Kept<VerifiedToken>,
    /// Requests for a fetch, if the keys come from a URL.
    wishes: Option<Arc<RefreshRequests>>,
}

/// The communication between calls and the fetch task.
struct RefreshRequests {
    wish: Notify,
    /// The number of completed fetches.
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
    /// Reads or fetches the keys for the first time. If the server does not answer, the fetch is retried later: it may
    /// start after the gateway. A file has to exist.
    pub(super) async fn open(place: &Place, config: &Config, upkeep: &mut Upkeep) -> anyhow::Result<Keys> {
        let url = match place {
            Place::Url(url) => url.clone(),
            Place::File(path) => {
                let of_file = |contents: &[Contents]| {
                    KeySet::read(contents.first().map(|file| file.as_slice()).unwrap_or_default())
                        .map(VerifiedToken::Keys)
                };
                let keys = Reload::open("JWKS (GW_JWT_JWKS)", vec![path.clone()], of_file)?;
                let latest = upkeep.guard(keys.within("jwks", config.max_stale()));
                return Ok(Keys { latest, wishes: None });
            }
        };
        let refresh = config.jwt_jwks_refresh;
        // The keys are stale only once the next fetch is overdue.
        let limit = config.max_stale().map(|limit| limit + refresh.mul_f64(1.1) + FETCH);
        let fresh = Fresh::new("jwks", limit);
        let fetch = Fetch::new(&url, config.jwt_jwks_ca.as_deref())?;
        let wishes = Arc::new(RefreshRequests::new());
        let latest = watch::Sender::new(Arc::new(VerifiedToken::Keys(KeySet::default())));
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
        upkeep.also("refresh of the JWKS (GW_JWT_JWKS)", fetcher.run());
        Ok(keys)
    }

    /// A key set with the key of a token. `shares` are those of the token's connection.
    pub(super) async fn with(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        shares: Option<&Arc<Shares>>,
    ) -> Result<Arc<VerifiedToken>, AuthError> {
        let look = || {
            let latest = self.latest.get()?;
            match &*latest {
                VerifiedToken::Keys(keys) if keys.find(id, algorithm).is_some() => Ok(latest),
                VerifiedToken::Keys(keys) if keys.len() == 0 => Err(AuthError::NoKeysYet),
                _ => Err(AuthError::Key),
            }
        };
        match (look(), &self.wishes) {
            (Err(unknown), Some(wishes)) => match wishes.granted(shares).await {
                Some(true) => look(),
                Some(false) => Err(unknown),
                // The key may be valid, but that cannot be checked now.
                None => Err(AuthError::Busy),
            },
            (found, _) => found,
        }
    }

    /// Whether these keys are the ones in use.
    pub(super) fn are(&self, proof: &Arc<VerifiedToken>) -> bool {
        self.latest.is(proof)
    }
}

impl RefreshRequests {
    fn new() -> RefreshRequests {
        RefreshRequests {
            wish: Notify::new(),
            ended: watch::Sender::new(0),
            last: Mutex::new(Last { began: Instant::now(), under_way: true }),
            places: Semaphore::new(WAITING),
        }
    }

    /// Requests a fetch, and waits for its end. False if the last one is too recent; none if too many calls wait. The
    /// caller is not authenticated yet, so the fair share of its connection applies: as many waiting calls as it leaves
    /// free.
    async fn granted(&self, shares: Option<&Arc<Shares>>) -> Option<bool> {
        let mut ended = self.ended.subscribe();
        let last = *self.last();
        if !last.under_way && last.began.elapsed() < LEAST {
            return Some(false);
        }
        let _share = match shares {
            Some(shares) => Some(shares.take(ShareKind::KEYS, self.places.available_permits())?),
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

    fn last(&self) -> parking_lot::MutexGuard<'_, Last> {
        self.last.lock()
    }
}

/// The fetch task.
struct Fetcher {
    url: Uri,
    fetch: Fetch,
    wishes: Arc<RefreshRequests>,
    latest: watch::Sender<Arc<VerifiedToken>>,
    seen: Option<digest::Digest>,
    refresh: Duration,
    fresh: Fresh,
    /// Whether the last fetch failed.
    failed: bool,
}

impl Fetcher {
    async fn run(mut self) {
        loop {
            let began = self.wishes.last().began;
            let known = self.seen.is_some() && !self.failed;
            // Jitter, so that gateways do not fetch at the same time.
            let pause = if known { self.refresh.mul_f64(0.9 + fraction() / 5.0) } else { LEAST };
            tokio::select! {
                () = sleep_until(began + pause) => {}
                () = self.wishes.wish.notified() => {}
            }
            // The request may be older than the last fetch.
            sleep_until(began + LEAST).await;
            self.once().await;
        }
    }

    async fn once(&mut self) {
        self.wishes.begin();
        let fetched = self.fetch.get().await.map_err(anyhow::Error::from);
        let taken = fetched.and_then(|json| self.take(&json));
        self.failed = taken.is_err();
        if let Err(error) = taken {
            let kept = self.seen.is_some() && !self.fresh.over();
            let age = self.fresh.age().as_secs();
            tracing::warn!(url = %self.url, error = format!("{error:#}"), kept, age, "cannot fetch the JWKS");
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
        tracing::info!(url = %self.url, keys = keys.len(), "JWKS fetched");
        self.latest.send_replace(Arc::new(VerifiedToken::Keys(keys)));
        self.seen = Some(seen);
        Ok(())
    }
}

/// A random number from 0 to 1.
fn fraction() -> f64 {
    nats::backoff::jitter(1_000) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_too_many_that_waits_for_a_key_is_not_told_that_its_key_is_unknown() {
        let wishes = Arc::new(RefreshRequests::new());
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
        let wishes = Arc::new(RefreshRequests::new());
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
        assert_eq!(greedy.held(ShareKind::KEYS), 0, "they are given back");
    }
}
