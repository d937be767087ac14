//! The runtime of one serving thread: a connection to NATS, a bridge over it, and a gRPC server. Must not share a
//! socket with another thread.

use std::net::TcpListener;
use std::sync::Arc;

use contract::OrderReason;
use nats::Connection;
use telemetry::exposition::Tasks;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::order_system;
use super::shared::Shared;
use bridge::Bridge;
use orders::feed::Feed;
use server::grpc::{self, Api, CodedService, Limits, Sizes};
use server::{Baggage, CallMetrics};

/// The parameters of a serving thread.
pub(super) struct Runtime {
    pub(super) number: usize,
    pub(super) shared: Arc<Shared>,
    /// None without the order system.
    pub(super) feed: Option<Arc<Feed>>,
    pub(super) listener: TcpListener,
}

impl Runtime {
    /// Serves until the gateway drains and every call is answered. Reports on `up` whether the start succeeded.
    pub(super) async fn run(self, up: oneshot::Sender<anyhow::Result<()>>) {
        let name = format!("gateway {}", self.number);
        let link = match Connection::connect(&self.shared.config.nats, &name).await {
            Ok(link) => link,
            Err(error) => {
                // The receiver is gone if the start was cancelled.
                let _ = up.send(Err(error.into()));
                return;
            }
        };
        let drain = self.shared.drain.clone();
        let limits = self.limits();
        self.shared.supervisor.spawn(format!("replies to {name}"), link.closed());
        let bridge = Bridge::new(link.clone(), self.shared.states.clone());
        self.shared.work.add(bridge.tasks().clone());
        let metrics =
            CallMetrics::new(self.shared.tracer.clone(), self.shared.states.catalog(), OrderReason::NAMES);
        let registry = &self.shared.registry;
        registry.add(Tasks(Handle::current()));
        registry.add(bridge.connection().clone());
        registry.add(bridge.metrics().clone());
        registry.add(metrics.clone());
        let service = |feed| {
            Box::new(order_system::service(&self.shared, bridge.clone(), feed)) as Box<dyn CodedService>
        };
        let services = self.feed.map(service).into_iter().collect();
        let api = Api {
            bridge,
            services,
            names: self.shared.services(),
            health: self.shared.board.clone(),
            metrics,
            baggage: Baggage::new(&self.shared.config.baggage),
            guard: self.shared.secure.guard.clone(),
            reflection: self.shared.config.access.reflection,
        };
        match grpc::open(self.listener, api, limits, drain) {
            Ok(serve) => {
                let _ = up.send(Ok(()));
                serve.await;
            }
            Err(error) => drop(up.send(Err(error))),
        }
    }

    fn limits(&self) -> Limits {
        let limits = &self.shared.config.limits;
        Limits {
            streams: limits.max_streams,
            headers: limits.max_header_bytes,
            age: (!limits.max_connection_age.is_zero()).then_some(limits.max_connection_age),
            grace: limits.max_connection_age_grace,
            idle: (!limits.max_connection_idle.is_zero()).then_some(limits.max_connection_idle),
            connections: self.shared.room.grpc.clone(),
            tls: self.shared.secure.tls.clone(),
            sizes: Sizes { request: limits.max_request_bytes, reply: limits.max_reply_bytes },
            budget: self.shared.budget.clone(),
        }
    }
}
