//! The runtime of one serving thread: a connection to NATS, a bridge over it, and a gRPC server. Must not share a
//! socket with another thread.

use std::net::TcpListener;
use std::sync::Arc;

use contract::OrderReason;
use nats::Connection;
use nats::options::ConnectError;
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
        let bridge = match self.bridge(&name).await {
            Ok(bridge) => bridge,
            Err(error) => {
                // The receiver is gone if the start was cancelled.
                let _ = up.send(Err(error.into()));
                return;
            }
        };
        let drain = self.shared.drain.clone();
        let limits = self.limits();
        for connection in bridge.connections() {
            self.shared.supervisor.spawn(format!("replies to {}", connection.name()), connection.closed());
            self.shared.registry.add(connection.clone());
        }
        self.shared.work.add(bridge.tasks().clone());
        let metrics = CallMetrics::new(self.shared.tracer.clone(), OrderReason::NAMES);
        let registry = &self.shared.registry;
        registry.add(Tasks(Handle::current()));
        registry.add(bridge.metrics().clone());
        registry.add(metrics.clone());
        let service = |feed| {
            Box::new(order_system::service(&self.shared, bridge.clone(), feed)) as Box<dyn CodedService>
        };
        let services = self.feed.map(service).into_iter().collect();
        let api = Api {
            bridge,
            services,
            current: self.shared.current.clone(),
            health: self.shared.board.clone(),
            metrics,
            baggage: Baggage::new(&self.shared.config.baggage),
            guard: self.shared.secure.guard.clone(),
        };
        match grpc::open(self.listener, api, limits, drain) {
            Ok(serve) => {
                let _ = up.send(Ok(()));
                serve.await;
            }
            Err(error) => drop(up.send(Err(error))),
        }
    }

    /// The bridge of this thread. Streams have a connection of their own, where a route is or may become one: their messages
    /// do not hold up the replies of others.
    async fn bridge(&self, name: &str) -> Result<Bridge, ConnectError> {
        let Shared { config, current, .. } = &*self.shared;
        let states = current.served().states().clone();
        let streams = states.catalog().routes().iter().any(|route| route.kind.streams_replies());
        let bridge = Bridge::new(Connection::connect(&config.nats, name).await?, states);
        match streams || config.changes() {
            true => {
                let streams = Connection::connect(&config.nats, &format!("{name} streams")).await?;
                Ok(bridge.streaming_over(streams))
            }
            false => Ok(bridge),
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
