//! The set-up of TLS and authentication: certificates, keys and lists of callers, read at the start and kept up to
//! date. Must not depend on calls.

use std::sync::Arc;

use telemetry::{Exposition, Source};

use crate::auth::{Access, Upkeep};
use crate::config::Serve;
use crate::edge::authorization::Authorization;
use crate::edge::expiry::Expiry;
use crate::edge::server::Tls;
use crate::edge::tls;
use crate::fresh::Sources;
use catalog::Catalog;

/// TLS and authentication, shared by the serving threads.
pub(super) struct TlsAndAuth {
    pub(super) tls: Option<Tls>,
    pub(super) guard: Option<Arc<Authorization>>,
    pub(super) figures: SecurityMetrics,
}

/// Metrics: the freshness of keys and lists, and the expiry of certificates.
#[derive(Clone)]
pub(super) struct SecurityMetrics(Sources, Expiry);

impl Source for SecurityMetrics {
    fn collect(&self, page: &mut Exposition) {
        self.0.collect(page);
        self.1.collect(page);
    }
}

/// Reads all files, and returns the tasks that keep them up to date.
pub(super) async fn open(config: &Serve, catalog: &Arc<Catalog>) -> anyhow::Result<(TlsAndAuth, Upkeep)> {
    config.check_exposure()?;
    config.warn_of_exposed_secrets();
    let (guard, mut upkeep) = match Access::open(&config.access, catalog).await? {
        Some((access, upkeep)) => {
            (Some(Arc::new(Authorization::new(access, catalog.clone(), config.access.reflection))), upkeep)
        }
        None => (None, Upkeep::default()),
    };
    // The limit of handshakes is divided among the threads, at least one each.
    let handshakes = (config.limits.max_handshakes as usize).div_ceil(config.thread_count());
    let tls = tls::open(&config.tls, config.access.max_stale(), &mut upkeep)?;
    let expiry = tls.as_ref().map(|tls| tls.expiry.clone()).unwrap_or_default();
    let tls = tls.map(|tls| Tls { latest: tls.configs, handshakes, trust: tls.trust });
    let figures = SecurityMetrics(upkeep.sources(), expiry);
    Ok((TlsAndAuth { tls, guard, figures }, upkeep))
}
