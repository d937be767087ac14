//! Whose client certificates are believed, and how long one that was believed stays so: until a certificate of its chain
//! ends, or its authority is trusted no longer. Must never know who a client is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Unknown, end};
use crate::fresh::Fresh;
use crate::provider::ring;

/// The clock may be set: nothing is taken for granted for longer.
const LOOK: Duration = Duration::from_secs(30);

/// The authorities that are trusted now. Each has another number.
#[derive(Debug)]
pub(crate) struct Authorities {
    number: u64,
    /// None where none is trusted any more.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// When the next of them ends, in seconds of unix time.
    ends: Option<u64>,
}

/// Those that are trusted, kept up to date. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    current: watch::Receiver<Arc<Authorities>>,
    fresh: Fresh,
}

/// A client's certificates, and what is known of them.
pub(crate) struct Standing {
    trust: Trust,
    /// The client's own one first.
    chain: Vec<CertificateDer<'static>>,
    /// The authorities that were asked last.
    asked: AtomicU64,
    /// Until then, in seconds of unix time, nothing of the chain ends.
    until: AtomicU64,
    over: AtomicBool,
}

impl Authorities {
    /// Those of these certificates that have not ended. `required`: whether a client without a certificate is turned away.
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

    /// Who checks certificates.
    pub(crate) fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.verifier.clone()
    }

    /// How long it takes until one of them ends.
    pub(crate) fn lasts(&self) -> Duration {
        self.ends.map_or(LOOK, |ends| Duration::from_secs(ends.saturating_sub(unix()))).min(LOOK)
    }

    /// Whether one of them has ended since.
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

    /// The number of the authorities that are asked now: to be taken before a handshake.
    pub(crate) fn number(&self) -> u64 {
        self.current.borrow().number
    }

    /// The standing of a client whom the authorities of this number believed.
    pub(crate) fn standing(self, number: u64, chain: Vec<CertificateDer<'static>>) -> Standing {
        let until = AtomicU64::new(next_end(&chain, unix()));
        Standing { trust: self, chain, asked: AtomicU64::new(number), until, over: AtomicBool::new(false) }
    }
}

impl Standing {
    /// Whether the client is still believed. Mostly that is two numbers to compare.
    pub(crate) fn check(&self) -> Result<(), Unknown> {
        if self.over.load(Ordering::Relaxed) {
            return Err(Unknown::Ended);
        }
        if self.trust.fresh.over() {
            return Err(Unknown::Stale);
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
            return Err(Unknown::Ended);
        }
        self.until.store(next_end(&self.chain, now), Ordering::Relaxed);
        self.asked.store(authorities.number, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until the client is believed no longer, for whatever reason. One who came when nobody was believed has no
    /// stream, and each of its calls is told why.
    pub(crate) async fn ended(&self) {
        let mut current = self.trust.current.clone();
        let mut believed = false;
        loop {
            current.borrow_and_update();
            let stale = match self.check() {
                Ok(()) => false,
                Err(Unknown::Stale) if !believed => true,
                Err(_) => return,
            };
            believed |= !stale;
            let rest = Duration::from_secs(self.until.load(Ordering::Relaxed).saturating_sub(unix()));
            let rest = if stale { LOOK } else { rest.min(self.trust.fresh.left().unwrap_or(LOOK)) };
            tokio::select! {
                // Without an end: an error says that the gateway ends.
                changed = current.changed() => if changed.is_err() { std::future::pending().await },
                () = sleep(rest.clamp(Duration::from_millis(100), LOOK)) => {}
            }
        }
    }
}

/// When the next certificate of a chain ends that has not. One whose end cannot be read is checked now and then.
fn next_end(chain: &[CertificateDer<'static>], now: u64) -> u64 {
    let end = |certificate: &CertificateDer<'_>| end::of(certificate).unwrap_or(now + LOOK.as_secs());
    chain.iter().map(end).filter(|end| *end > now).min().unwrap_or(now + LOOK.as_secs())
}

/// Seconds of unix time.
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
        assert_eq!(standing.check(), Err(Unknown::Stale));
        // Who comes then is told so by each call, and stays until it was believed once.
        let next = trust.standing(number, Vec::new());
        assert!(timeout(10 * LOOK, next.ended()).await.is_err());
        fresh.confirm();
        assert_eq!(next.check(), Ok(()));
    }
}
