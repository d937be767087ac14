//! One serving thread: a connection to NATS, a bridge over it, and a gRPC server. Must never share a socket with
//! another thread.

use std::net::TcpListener;
use std::sync::Arc;

use link::{Link, Store, streams};
use telemetry::page::Tasks;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Shared;
use crate::bridge::Bridge;
use crate::edge::orders::OrderApi;
use crate::edge::server::{self, Api, Limits, Sizes};
use crate::edge::{Baggage, Books};
use crate::feed::Feed;
use crate::order::Orders;

/// What a serving thread starts with.
pub(super) struct Core {
    pub(super) number: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) feed: Arc<Feed>,
    pub(super) listener: TcpListener,
}

impl Core {
    /// Serves until the gateway drains and every call is answered. Says on `up` whether it came up.
    pub(super) async fn run(self, up: oneshot::Sender<anyhow::Result<()>>) {
        let name = format!("gateway {}", self.number);
        let link = match Link::connect(&self.shared.config.nats, &name).await {
            Ok(link) => link,
            Err(error) => {
                // The receiver is gone if the start was given up.
                let _ = up.send(Err(error.into()));
                return;
            }
        };
        let _ = up.send(Ok(()));
        let drain = self.shared.drain.clone();
        let limits = self.limits();
        let bridge = Bridge::new(link.clone(), self.shared.lanes.clone());
        self.shared.work.add(bridge.tasks().clone());
        let store = Store::new(link, streams::ORDERS).guarded(self.shared.guard.clone());
        let orders = Orders::new(bridge.clone(), store, self.feed.clone(), self.shared.places.clone());
        let books = Books::new(self.shared.tracer.clone());
        let book = &self.shared.book;
        book.add(Tasks(Handle::current()));
        book.add(bridge.link().clone());
        book.add(bridge.tallies().clone());
        book.add(books.clone());
        let api = Api {
            bridge,
            orders: OrderApi { orders, feed: self.feed },
            board: self.shared.board.clone(),
            books,
            baggage: Baggage::new(&self.shared.config.baggage),
            guard: self.shared.secure.guard.clone(),
            reflection: self.shared.config.access.reflection,
        };
        if let Err(error) = server::serve(self.listener, api, limits, drain).await {
            tracing::error!(%error, thread = self.number, "a thread serves no more");
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
            seats: self.shared.room.grpc.clone(),
            tls: self.shared.secure.tls.clone(),
            sizes: Sizes { request: limits.max_request_bytes, reply: limits.max_reply_bytes },
            budget: self.shared.budget.clone(),
        }
    }
}
