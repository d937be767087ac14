//! The order system in a running gateway: its streams, the feed and OrderService. A gateway of routes alone has none of it.

use std::sync::Arc;

use nats::{Connection, Store};
use order_streams::ORDERS;

use super::shared::Shared;
use super::stream_guard::StreamGuard;
use crate::config::Provision;
use bridge::Bridge;
use orders::feed::{self, Feed};
use orders::service::Orders;
use orders::service::api::OrderApi;

/// What is read once, independent of the serving threads.
pub(super) struct OrderSystem {
    pub(super) record: StreamGuard,
    pub(super) feed: Arc<Feed>,
}

impl OrderSystem {
    /// Finds or creates the streams, and starts to read ORDERS.
    pub(super) async fn open(shared: &Shared, link: &Connection) -> anyhow::Result<OrderSystem> {
        // Use the clock of the leader of ORDERS, not of the other streams' leaders.
        link.clock().follow(ORDERS);
        link.permitted(OrderSystem::read(shared, link)).await?
    }

    async fn read(shared: &Shared, link: &Connection) -> anyhow::Result<OrderSystem> {
        let make = shared.config.provision == Provision::Auto;
        let streams = order_streams::open(link, shared.config.replicas, make).await?;
        let identity = streams.identity(ORDERS);
        let replicas = streams.config(ORDERS).map(|config| config.num_replicas);
        tracing::info!(replicas, made = ?streams.made, "streams");
        for warning in streams.durability(shared.config.nats.monitor()).await {
            tracing::warn!(target: "durability", "{warning}");
        }
        shared.guard.keep(ORDERS, identity.clone());
        let record = StreamGuard::new(link.clone(), identity.clone());
        let watches = shared.config.limits.max_watches as usize;
        let limits = feed::Limits { watches, ..feed::Limits::default() };
        Ok(OrderSystem {
            record,
            feed: Feed::start(link.clone(), identity, limits, &shared.supervisor).await?,
        })
    }
}

/// OrderService over a thread's connection.
pub(super) fn service(shared: &Shared, bridge: Bridge, feed: Arc<Feed>) -> OrderApi {
    // Its routes are compiled in: of a catalog that is read again it needs nothing.
    let contract = orders::served::contract();
    let states = shared.current.look().states().next(contract.clone(), contract.serving_routes());
    let bridge = bridge.serving(Arc::new(states));
    let store = Store::new(bridge.connection().clone(), ORDERS).guarded(shared.guard.clone());
    let orders = Orders::new(bridge, store, feed.clone(), shared.places.clone());
    OrderApi { orders, feed }
}
