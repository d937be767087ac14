//! The trusted client CAs, and how long a client certificate stays trusted: until a certificate of its chain expires,
//! or its CA is no longer trusted. Must not depend on who a client is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{AuthError, end};
use crate::crypto::ring;
use crate::fresh::Fresh;

/// Maximum interval between two checks: the clock may be adjusted.
const LOOK: Duration = Duration::from_secs(30);

/// A version of the trusted CAs, with a unique number.
#[derive(Debug)]
pub(crate) struct Authorities {
    number: u64,
    /// None if no CA is trusted any longer.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// When the next of them expires, in seconds of Unix time.
    ends: Option<u64>,
}

/// The trusted CAs, kept up to date. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    current: watch::Receiver<Arc<Authorities>>,
    fresh: Fresh,
}

/// The certificate chain of a client, and its trust status.
pub(crate) struct Standing {
    trust: Trust,
    /// The client's own certificate first.
    chain: Vec<CertificateDer<'static>>,
    /// The number of the CA version that verified the chain last.
    asked: AtomicU64,
    /// Until then, in seconds of Unix time, no certificate of the chain expires.
    until: AtomicU64,
    over: AtomicBool,
}

impl Authorities {
    /// The CA certificates that have not expired. `required`: whether a client certificate is required.
    pub(crate) fn of(
        certificates: &[CertificateDer<'static>],
        required: bool,
        now: u64,
    ) -> anyhow::Result<Authorities> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (mut roots, mut ends) = (RootCertStore::empty(), None::<u64>);
        for certificate in certificates {
            let end = end::of(certificate);
            if end.is_none_or(|end| end > now) {
                roots.add(certificate.clone())?;
                ends = [ends, end].into_iter().flatten().min();
            }
        }
        let verifier = match roots.is_empty() {
            true => None,
            false => {
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ring());
                Some(if required { builder.build()? } else { builder.allow_unauthenticated().build()? })
            }
        };
        Ok(Authorities { number: NEXT.fetch_add(1, Ordering::Relaxed), verifier, ends })
    }

    /// The verifier of client certificates.
    pub(crate) fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.verifier.clone()
    }

    /// The time until one of them expires.
    pub(crate) fn lasts(&self) -> Duration {
        self.ends.map_or(LOOK, |ends| Duration::from_secs(ends.saturating_sub(unix()))).min(LOOK)
    }

    /// Whether one of them has expired since.
    pub(crate) fn outdated(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= unix())
    }

    fn believe(&self, chain: &[CertificateDer<'static>], now: u64) -> bool {
        let (Some(verifier), Some((own, rest))) = (&self.verifier, chain.split_first()) else { return false };
        verifier.verify_client_cert(own, rest, UnixTime::since_unix_epoch(Duration::from_secs(now))).is_ok()
    }
}

impl Trust {
    pub(crate) fn new(current: watch::Receiver<Arc<Authorities>>, fresh: Fresh) -> Trust {
        Trust { current, fresh }
    }

    /// The number of the current CA version; has to be read before a handshake.
    pub(crate) fn number(&self) -> u64 {
        self.current.borrow().number
    }

    /// The status of a client that the CA version with this number verified.
    pub(crate) fn standing(self, number: u64, chain: Vec<CertificateDer<'static>>) -> Standing {
        let until = AtomicU64::new(next_end(&chain, unix()));
        Standing { trust: self, chain, asked: AtomicU64::new(number), until, over: AtomicBool::new(false) }
    }
}

impl Standing {
    /// Whether the client is still trusted. Usually this only compares two numbers.
    pub(crate) fn check(&self) -> Result<(), AuthError> {
        if self.over.load(Ordering::Relaxed) {
            return Err(AuthError::Ended);
        }
        if self.trust.fresh.over() {
            return Err(AuthError::Stale);
        }
        let now = unix();
        let authorities = self.trust.current.borrow().clone();
        if authorities.number == self.asked.load(Ordering::Relaxed)
            && now < self.until.load(Ordering::Relaxed)
        {
            return Ok(());
        }
        if !authorities.believe(&self.chain, now) {
            self.over.store(true, Ordering::Relaxed);
            return Err(AuthError::Ended);
        }
        self.until.store(next_end(&self.chain, now), Ordering::Relaxed);
        self.asked.store(authorities.number, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until the client is no longer trusted, for any reason. A client that connects while the CAs are stale has
    /// no streams, and each of its calls gets the reason.
    pub(crate) async fn ended(&self) {
        let mut current = self.trust.current.clone();
        let mut believed = false;
        loop {
            current.borrow_and_update();
            let stale = match self.check() {
                Ok(()) => false,
                Err(AuthError::Stale) if !believed => true,
                Err(_) => return,
            };
            believed |= !stale;
            let rest = Duration::from_secs(self.until.load(Ordering::Relaxed).saturating_sub(unix()));
            let rest = if stale { LOOK } else { rest.min(self.trust.fresh.left().unwrap_or(LOOK)) };
            tokio::select! {
                // An error means that the gateway is stopping.
                changed = current.changed() => if changed.is_err() { std::future::pending().await },
                () = sleep(rest.clamp(Duration::from_millis(100), LOOK)) => {}
            }
        }
    }
}

/// When the next certificate of a chain expires. One whose expiry cannot be parsed is rechecked at intervals.
fn next_end(chain: &[CertificateDer<'static>], now: u64) -> u64 {
    let end = |certificate: &CertificateDer<'_>| end::of(certificate).unwrap_or(now + LOOK.as_secs());
    chain.iter().map(end).filter(|end| *end > now).min().unwrap_or(now + LOOK.as_secs())
}

/// The current Unix time, in seconds.
pub(crate) fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const MOST: Duration = Duration::from_secs(4);

    fn trust() -> (watch::Sender<Arc<Authorities>>, Fresh, Trust) {
        let none = Authorities::of(&[], true, unix()).unwrap();
        let (authorities, fresh) = (watch::Sender::new(Arc::new(none)), Fresh::new("here", Some(MOST)));
        let trust = Trust::new(authorities.subscribe(), fresh.clone());
        (authorities, fresh, trust)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_believed_no_longer_when_its_authority_could_not_be_read_for_too_long() {
        let (_authorities, fresh, trust) = trust();
        let number = trust.number();
        let standing = trust.clone().standing(number, Vec::new());
        assert!(timeout(MOST, standing.ended()).await.is_err());
        assert!(timeout(MOST, standing.ended()).await.is_ok());
        assert_eq!(standing.check(), Err(AuthError::Stale));
        // A client that connects then gets the reason with each call, and its connection stays open until it was
        // trusted once.
        let next = trust.standing(number, Vec::new());
        assert!(timeout(10 * LOOK, next.ended()).await.is_err());
        fresh.confirm();
        assert_eq!(next.check(), Ok(()));
    }
}
