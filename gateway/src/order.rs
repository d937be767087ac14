//! Orders: create, read, list, move along, follow. The domain of the gateway: it asks the services behind through the
//! bridge and keeps its record through `store`; it must never know gRPC.
//!
//! `status`, `request`, `record` and `event` are plain values and rules, and the feed builds on them; `store` is the
//! record; `own` says whose orders a caller may see; `flow`, `update` and `list` are the calls.

pub mod clerk;
pub mod damage;
pub mod event;
mod flow;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod list;
mod own;
pub mod record;
pub mod request;
pub mod status;
mod store;
#[cfg(test)]
mod tests;
mod update;

use std::sync::Arc;
use std::time::Duration;

use contract::orders::v1 as pb;
use contract::{Delivered, Failure, Fault, Reason};
use link::Store;
use link::store::Range;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::bridge::Bridge;
use crate::call::Call;
use crate::feed::{self, Feed};
use crate::gate::{Gate, Place};
use crate::share::Slot;
use flow::Flow;
use record::Order;
use request::{Change, Follow, NewOrder, Query, Whose};
use store::Records;

/// Lists in flight: each takes up to 3 MiB. Their reads share a bound in the feed.
const LISTS: usize = 128;
/// When to come back after being turned away.
const SHED: Duration = Duration::from_millis(100);
/// How often, and how long apart, the end of the record is read again for a token ahead of it: a new leader may be a
/// moment behind.
const AHEAD: (u32, Duration) = (5, Duration::from_millis(100));

/// The order service behind the edge. Clones share it; one per core.
#[derive(Clone)]
pub struct Orders {
    bridge: Bridge,
    records: Records,
    feed: Arc<Feed>,
    places: Arc<Places>,
}

/// Calls in flight, of a whole gateway.
#[derive(Debug)]
pub struct Places {
    create: Arc<Gate>,
    get: Arc<Gate>,
    update: Arc<Gate>,
    list: Arc<Gate>,
    /// Reservations that are being given back: they go on after their call, and keep no other out.
    release: Arc<Gate>,
}

impl Places {
    /// So many for each rpc; fewer for lists.
    pub fn new(in_flight: usize) -> Places {
        let gate = |slot| Gate::new(in_flight, slot);
        Places {
            create: gate(Slot::CREATE),
            get: gate(Slot::GET),
            update: gate(Slot::UPDATE),
            list: Gate::new(in_flight.min(LISTS), Slot::LIST),
            release: gate(Slot::CREATE),
        }
    }
}

impl Orders {
    /// The service over this bridge, with its record in this store. Those of one gateway share their places.
    pub fn new(bridge: Bridge, store: Store, feed: Arc<Feed>, places: Arc<Places>) -> Orders {
        let records = Records::noting(store, feed.damage());
        Orders { bridge, records, feed, places }
    }

    /// Places an order. From the reservation on it runs to its end also when the caller leaves, in the caller's hand; the
    /// bridge's tasks say when all such work is done. Every error of a valid request that had a place names the request id and the order
    /// id.
    pub async fn create(&self, request: pb::CreateOrderRequest, call: Call) -> Result<pb::Order, Failure> {
        let place = enter(&self.places.create, "CreateOrder", &call)?;
        let order = NewOrder::parse(request, &call.principal).map_err(Failure::invalid)?;
        own::check(&order.customer, &call)?;
        let (request_id, order_id) = (order.request_id.clone(), order.id.to_string());
        call.span.note("request.id", &request_id);
        call.span.note("order.id", &order_id);
        let call = Call { request_id: Some(request_id.clone()), ..call };
        let flow = Flow { bridge: self.bridge.clone(), records: self.records.clone(), order, call };
        match self.place(flow, place).await {
            Ok(order) => Ok((&order).into()),
            Err(failure) => Err(failure.with("request_id", request_id).with("order_id", order_id)),
        }
    }

    async fn place(&self, flow: Flow, place: Place) -> Result<Order, Failure> {
        let (answer, placed) = oneshot::channel();
        let releases = self.places.release.clone();
        let work = async move {
            if let Err(failure) = flow.check().await {
                let _ = answer.send(place.judge(flow.call.deadline, Err(failure)));
                return;
            }
            // Nothing is reserved for a caller who has left by then.
            if answer.is_closed() {
                return;
            }
            let (placed, holds) = match flow.place().await {
                Ok(order) => (Ok(order), false),
                Err(stopped) => (Err(stopped.failure), stopped.holds),
            };
            // An error says that the caller has left.
            let _ = answer.send(place.judge(flow.call.deadline, placed));
            drop(place);
            if !holds {
                return;
            }
            match releases.enter(None) {
                Ok(_place) => flow.release().await,
                Err(_) => tracing::info!(order = %flow.order.id, "a reservation is left to its expiry"),
            }
        };
        self.bridge.begin(work).await;
        placed.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Reads an order.
    pub async fn get(&self, request: pb::GetOrderRequest, call: Call) -> Result<pb::Order, Failure> {
        let place = enter(&self.places.get, "GetOrder", &call)?;
        let id = request::find(&request).map_err(Failure::invalid)?;
        call.span.note("order.id", &id);
        let order = place.judge(call.deadline, update::get(&self.records, id, &call).await);
        order.map(|order| (&order).into()).map_err(|failure| failure.with("order_id", id.to_string()))
    }

    /// Moves an order along.
    pub async fn update(
        &self,
        request: pb::UpdateOrderStatusRequest,
        call: Call,
    ) -> Result<pb::Order, Failure> {
        let place = enter(&self.places.update, "UpdateOrderStatus", &call)?;
        let change = Change::parse(&request).map_err(Failure::invalid)?;
        let (id, records) = (change.id, self.records.clone());
        call.span.note("order.id", &id);
        // What was sent is not taken back by a caller who leaves: it is in the caller's hand to its end.
        let (answer, updated) = oneshot::channel();
        let work = async move {
            let updated = update::update(&records, &change, &call).await;
            // An error says that the caller has left.
            let _ = answer.send(place.judge(call.deadline, updated));
        };
        self.bridge.begin(work).await;
        match updated.await.unwrap_or_else(|_| Err(lost())) {
            Ok(order) => Ok((&order).into()),
            Err(failure) => Err(failure.with("order_id", id.to_string())),
        }
    }

    /// Lists orders. The page is in its place until it is sent.
    pub async fn list(
        &self,
        request: pb::ListOrdersRequest,
        call: Call,
    ) -> Result<(pb::ListOrdersResponse, Place), Failure> {
        let place = enter(&self.places.list, "ListOrders", &call)?;
        let mut query = Query::parse(&request).map_err(Failure::invalid)?;
        query.customer = own::narrow(query.customer, &call)?;
        let page = list::list(&self.records, &self.feed, &query, &call).await;
        place.judge(call.deadline, page).map(|page| (page, place))
    }

    /// What a watch is about, the sequence after which it begins (that of its token, or the record's last), and its
    /// place.
    pub async fn follow(
        &self,
        request: pb::WatchOrdersRequest,
        call: Call,
    ) -> Result<(Whose, u64, feed::Place), Failure> {
        let place = self.feed.enter(&call)?;
        let Follow { whose, token } = Follow::parse(&request).map_err(Failure::invalid)?;
        let whose = own::narrow_follow(whose, &call)?;
        if let Whose::Order(id) = &whose {
            call.span.note("order.id", id);
        }
        let invalid = |text| Failure::invalid(vec![Fault::new("resume_token", text)]);
        let token = token
            .map(|token| self.feed.tokens().read_resume(&token))
            .transpose()
            .map_err(|_| invalid("must be a resume_token of this service, unchanged"))?;
        if let (Whose::Order(id), Some(_)) = (&whose, &call.customer) {
            let _turn = self.feed.turn(&call).await?;
            // A record never changes whose an order is.
            let order = update::get(&self.records, *id, &call).await;
            order.map_err(|failure| failure.with("order_id", id.to_string()))?;
        }
        let mut range = self.range(&call).await?;
        let Some(from) = token else { return Ok((whose, range.last, place)) };
        for _ in 0..AHEAD.0 {
            if from <= range.last {
                break;
            }
            sleep(AHEAD.1).await;
            range = self.range(&call).await?;
        }
        if from > range.last {
            return Err(invalid("is ahead of the record"));
        }
        if from + 1 < range.first {
            return Err(invalid("is older than the record"));
        }
        Ok((whose, from, place))
    }

    /// First and last sequence of the record, in turn.
    async fn range(&self, call: &Call) -> Result<Range, Failure> {
        let _turn = self.feed.turn(call).await?;
        self.records.range(call).await
    }
}

/// What a service or the record says breaks the contract. `what` is for the log, the message is for the caller.
fn violation(what: impl std::fmt::Display, message: &str) -> Failure {
    Failure::new(Reason::ContractViolation, message).delivered(Delivered::Yes).because(what)
}

/// A task ends without an answer only if it panics, which is logged where it happens.
fn lost() -> Failure {
    Failure::new(Reason::Internal, "the call broke off").delivered(Delivered::Unknown)
}

fn enter(gate: &Arc<Gate>, rpc: &str, call: &Call) -> Result<Place, Failure> {
    let place = gate.enter(call.shares());
    place.map_err(|full| full.failure(&format!("/orders.v1.OrderService/{rpc}"), SHED))
}
