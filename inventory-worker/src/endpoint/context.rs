//! What the handlers of requests are given. Must not depend on any request.

use std::sync::Arc;
use std::time::Duration;

use telemetry::Span;
use tokio::time::Instant;
use wire::Failure;

use super::shares::{Share, Shares};
use super::wide::Wide;
use crate::events::{Events, Floor};
use crate::ledger::Ledger;
use crate::reconcile::Reconciler;
use crate::release::Releaser;
use crate::stock::{Amounts, Stock};

/// What the handlers need.
pub struct Inventory {
    /// The stock.
    pub ledger: Ledger,
    /// Releases reservations.
    pub releaser: Releaser,
    /// How long a reservation holds without an order; `None`: until it is released.
    pub ttl: Option<Duration>,
    /// For an operator's commands.
    pub upkeep: Arc<Upkeep>,
    /// For requests of many lines.
    pub wide: Arc<Wide>,
    /// Each caller's share of what the stock keeps.
    pub shares: Arc<Shares>,
}

/// The context of a request, besides its payload.
pub struct RequestContext {
    /// Until when the answer is useful.
    pub deadline: Instant,
    /// The principal that the gateway authenticated; empty without authentication, and for plain NATS clients.
    pub principal: Box<str>,
    /// The span of its work.
    pub span: Span,
}

impl Inventory {
    /// Counts what a request adds to what the stock keeps; QUOTA_EXCEEDED if its caller is over its share.
    pub(super) async fn share<'a>(
        &'a self,
        context: &'a RequestContext,
        adds: impl Fn(&Stock) -> Amounts,
    ) -> Result<Share<'a>, Failure> {
        let take = || {
            let stock = self.ledger.stock();
            self.shares.take(&context.principal, adds(&stock), stock.amounts(), self.ledger.clock().unix_ms())
        };
        if let Ok(share) = take() {
            return Ok(share);
        }
        // It may be a repeat that was committed and that this worker does not know yet.
        self.ledger.catch_up(context.deadline).await?;
        take()
    }

    /// The same, for work under this span.
    pub(super) fn under(self: &Arc<Self>, span: &Span) -> Arc<Inventory> {
        if !span.traced() {
            return self.clone();
        }
        Arc::new(Inventory {
            ledger: self.ledger.under(span),
            releaser: self.releaser.under(span),
            ttl: self.ttl,
            upkeep: self.upkeep.clone(),
            wide: self.wide.clone(),
            shares: self.shares.clone(),
        })
    }
}

/// What an operator's requests need besides the ledger.
pub struct Upkeep {
    /// Processes events.
    pub events: Events,
    /// The consumer's acknowledgement floor.
    pub floor: Arc<Floor>,
    /// Brings reservations in line with the record.
    pub settler: Reconciler,
}
