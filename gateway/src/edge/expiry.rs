//! When the certificates in use end, for whoever has to renew them. Must never know who shows one.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use telemetry::{Page, Source};
use tokio::sync::watch;

use crate::auth::{end, unix};

/// The server's certificate and the clients' authorities, as they are in use now.
#[derive(Clone, Default)]
pub(crate) struct Expiry {
    pub(super) identity: Option<watch::Receiver<Arc<CertifiedKey>>>,
    pub(super) authorities: Option<watch::Receiver<Arc<Vec<CertificateDer<'static>>>>>,
}

impl Source for Expiry {
    fn tell(&self, page: &mut Page) {
        let mut tell = |certificate, ends: Option<u64>| {
            let help = "When a certificate in use is no longer valid, as unix time: the next of its chain, or of the \
                        authorities that are still good.";
            let (labels, ends) =
                ([("certificate", certificate)], ends.map_or(f64::INFINITY, |ends| ends as f64));
            page.level("tls_certificate_not_after_timestamp_seconds", help, &labels, ends);
        };
        match &self.identity {
            Some(identity) => {
                tell("server", identity.borrow().cert.iter().filter_map(|one| end::of(one)).min())
            }
            // So that whoever asks for it finds that there is nothing that could end.
            None => tell("none", None),
        }
        if let Some(authorities) = &self.authorities {
            tell("client_ca", next(authorities.borrow().iter().filter_map(|one| end::of(one)), unix()));
        }
    }
}

/// The next end that is still to come; the last one, where all have ended. One that has ended beside its successor is no
/// trouble.
fn next(ends: impl Iterator<Item = u64>, now: u64) -> Option<u64> {
    let ends: Vec<u64> = ends.collect();
    ends.iter().filter(|end| **end > now).min().or_else(|| ends.iter().max()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_has_ended_counts_only_where_no_other_is_left() {
        assert_eq!(next([50, 300, 200].into_iter(), 100), Some(200));
        assert_eq!(next([50, 80].into_iter(), 100), Some(80));
        assert_eq!(next([].into_iter(), 100), None);
    }
}
