//! Expiry of the certificates in use, as metrics. Must not depend on who presents one.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use telemetry::{Exposition, Source};
use tokio::sync::watch;

use crate::auth::{end, unix};

/// The server certificate and the client CA certificates that are in use now.
#[derive(Clone, Default)]
pub(crate) struct Expiry {
    pub(super) identity: Option<watch::Receiver<Arc<CertifiedKey>>>,
    pub(super) authorities: Option<watch::Receiver<Arc<Vec<CertificateDer<'static>>>>>,
}

impl Source for Expiry {
    fn collect(&self, page: &mut Exposition) {
        let mut tell = |certificate, ends: Option<u64>| {
            let help = "When a certificate in use expires, as Unix time: the first of its chain, or of the CA \
                        certificates that are still valid.";
            let (labels, ends) =
                ([("certificate", certificate)], ends.map_or(f64::INFINITY, |ends| ends as f64));
            page.gauge("tls_certificate_not_after_timestamp_seconds", help, &labels, ends);
        };
        match &self.identity {
            Some(identity) => {
                tell("server", identity.borrow().cert.iter().filter_map(|one| end::of(one)).min())
            }
            // Export a series even without TLS, so that alerts can tell "no certificate" from "no data".
            None => tell("none", None),
        }
        if let Some(authorities) = &self.authorities {
            tell("client_ca", next(authorities.borrow().iter().filter_map(|one| end::of(one)), unix()));
        }
    }
}

/// The next expiry that is still to come; the last one if all have expired. An expired certificate beside its successor
/// does not matter.
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
