//! TLS and authentication of the gRPC port, from its flags: read once at start, and kept up to date. Must not serve.

use std::sync::Arc;

use catalog::Catalog;
use telemetry::{Exposition, Source};

pub use crate::auth::Upkeep;

use crate::auth::{self, Access};
use crate::authorization::Authorization;
use crate::config::{access, tls as flags};
use crate::expiry::Expiry;
use crate::fresh::Sources;
use crate::listener::Tls;
use crate::served::Current;
use crate::tls;

/// TLS and authentication, shared by the serving threads.
pub struct TlsAndAuth {
    /// TLS; none: plaintext.
    pub tls: Option<Tls>,
    /// Authentication and authorization; none: everyone may call.
    pub guard: Option<Arc<Authorization>>,
    /// Metrics of both.
    pub metrics: SecurityMetrics,
}

/// Metrics: the freshness of keys and lists, and the expiry of certificates.
#[derive(Clone)]
pub struct SecurityMetrics(Sources, Expiry);

impl Source for SecurityMetrics {
    fn collect(&self, page: &mut Exposition) {
        self.0.collect(page);
        self.1.collect(page);
    }
}

/// Reads all files, and returns the tasks that keep them up to date. `handshakes`: how many may be in progress per
/// thread.
///
/// # Errors
/// If a file, or a combination of flags, cannot be used.
pub async fn open(
    access: &access::Access,
    port: &flags::Tls,
    handshakes: usize,
    current: &Current,
) -> anyhow::Result<(TlsAndAuth, Upkeep)> {
    let (guard, mut upkeep) = match Access::open(access, current).await? {
        Some((callers, upkeep)) => {
            (Some(Arc::new(Authorization::new(callers, current.clone(), access.reflection))), upkeep)
        }
        None => (None, Upkeep::default()),
    };
    let tls = tls::open(port, access.max_stale(), &mut upkeep)?;
    let expiry = tls.as_ref().map(|tls| tls.expiry.clone()).unwrap_or_default();
    let tls = tls.map(|tls| Tls { latest: tls.configs, handshakes, trust: tls.trust });
    let metrics = SecurityMetrics(upkeep.sources(), expiry);
    Ok((TlsAndAuth { tls, guard, metrics }, upkeep))
}

/// Everything that [`open`] would refuse, all at once. Does not fetch keys from a server, nor keep anything.
pub async fn faults(
    access: &access::Access,
    port: &flags::Tls,
    catalog: &Arc<Catalog>,
) -> Vec<anyhow::Error> {
    let mut found = auth::faults(access, &Current::of(catalog)).await;
    found.extend(tls::open(port, None, &mut Upkeep::default()).err());
    found
}
