//! What keeps a gateway's door: certificates and the knowledge of callers, read at the start and kept up to date. Must
//! never know a call.

use std::sync::Arc;

use telemetry::{Page, Source};

use crate::auth::{Access, Upkeep};
use crate::config::Serve;
use crate::edge::expiry::Expiry;
use crate::edge::guard::Guard;
use crate::edge::server::Tls;
use crate::edge::tls;
use crate::fresh::Sources;

/// What the serving threads share.
pub(super) struct Secure {
    pub(super) tls: Option<Tls>,
    pub(super) guard: Option<Arc<Guard>>,
    pub(super) figures: Figures,
}

/// How fresh what says who may call is, and when certificates end.
#[derive(Clone)]
pub(super) struct Figures(Sources, Expiry);

impl Source for Figures {
    fn tell(&self, page: &mut Page) {
        self.0.tell(page);
        self.1.tell(page);
    }
}

/// Reads what there is, with the work of keeping it up to date.
pub(super) async fn open(config: &Serve) -> anyhow::Result<(Secure, Upkeep)> {
    config.check_exposure()?;
    config.warn_of_exposed_secrets();
    let (guard, mut upkeep) = match Access::open(&config.access).await? {
        Some((access, upkeep)) => (Some(Arc::new(Guard::new(access, config.access.reflection))), upkeep),
        None => (None, Upkeep::default()),
    };
    // Each thread has its share of the handshakes, and at least one.
    let handshakes = (config.limits.max_handshakes as usize).div_ceil(config.thread_count());
    let tls = tls::open(&config.tls, config.access.max_stale(), &mut upkeep)?;
    let expiry = tls.as_ref().map(|tls| tls.expiry.clone()).unwrap_or_default();
    let tls = tls.map(|tls| Tls { latest: tls.configs, handshakes, trust: tls.trust });
    let figures = Figures(upkeep.sources(), expiry);
    Ok((Secure { tls, guard, figures }, upkeep))
}
