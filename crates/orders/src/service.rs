//! OrderService: create, get, update, list and watch orders. It calls the services on NATS through the bridge and keeps
//! the record through `store`. Must not depend on gRPC.

pub mod api;
mod create;
mod list;
pub mod repair;
mod store;
#[cfg(test)]
mod tests;
mod update;

use std::sync::Arc;
use std::time::Duration;

use contract::orders::v1 as pb;
use nats::Store;
use nats::store::Range;
use order_streams::order::Order;
use tokio::sync::oneshot;
use tokio::time::sleep;
use wire::{Delivered, Failure, FieldViolation, Reason};

use crate::feed::{self, Feed};
use crate::order::request::{self, Change, Follow, NewOrder, Query, Whose};
use crate::order::tenancy;
use crate::share::{CREATE, GET, LIST, UPDATE};
use bridge::Bridge;
use bridge::call::CallContext;
use bridge::concurrency::{ConcurrencyLimit, Permit};
use create::CreateOrder;
use store::Records;

/// ListOrders calls in flight: each takes up to 3 MiB. Their reads share a limit in the feed.
const LISTS: usize = 128;
/// Retry delay of a call that a concurrency limit refused.
const SHED: Duration = Duration::from_millis(100);
/// How often, and at what interval, the last sequence of the record is read again for a token ahead of it: a new leader
/// may be briefly behind.
const AHEAD: (u32, Duration) = (5, Duration::from_millis(100));

/// The order service that the gRPC server calls. Clones share its state; one per core.
#[derive(Clone)]
pub struct Orders {
    bridge: Bridge,
    records: Records,
    feed: Arc<Feed>,
    places: Arc<Places>,
}

/// The concurrency limits of the rpcs, for a whole gateway.
#[derive(Debug)]
pub struct Places {
    create: Arc<ConcurrencyLimit>,
    get: Arc<ConcurrencyLimit>,
    update: Arc<ConcurrencyLimit>,
    list: Arc<ConcurrencyLimit>,
    /// Releases of reservations: they outlive their call, and take no permit of an rpc.
    release: Arc<ConcurrencyLimit>,
}

impl Places {
    /// `in_flight` permits for each rpc; fewer for lists.
    pub fn new(in_flight: usize) -> Places {
        let gate = |slot| ConcurrencyLimit::new(in_flight, slot);
        Places {
            create: gate(CREATE),
            get: gate(GET),
            update: gate(UPDATE),
            list: ConcurrencyLimit::new(in_flight.min(LISTS), LIST),
            release: gate(CREATE),
        }
    }
}

impl Orders {
    /// The service over this bridge, with its record in this store. All services of a gateway share `places`.
    pub fn new(bridge: Bridge, store: Store, feed: Arc<Feed>, places: Arc<Places>) -> Orders {
        let records = Records::noting(store, feed.damage());
        Orders { bridge, records, feed, places }
    }

    /// Creates an order. From the reservation on the work runs to its end even if the caller leaves, and counts towards
    /// the caller's share until then; drain waits for it through the bridge's tasks. Every error of a valid request
    /// that was admitted names the request id and the order id.
    pub async fn create(
        &self,
        request: pb::CreateOrderRequest,
        call: CallContext,
    ) -> Result<pb::Order, Failure> {
        let place = enter(&self.places.create, "CreateOrder", &call)?;
        let order = NewOrder::parse(request, &call.principal).map_err(Failure::invalid)?;
        tenancy::check(&order.customer, &call)?;
        let (request_id, order_id) = (order.request_id.clone(), order.id.to_string());
        call.span.note("request.id", &request_id);
        call.span.note("order.id", &order_id);
        let call = CallContext { request_id: Some(request_id.clone()), ..call };
        let flow = CreateOrder { bridge: self.bridge.clone(), records: self.records.clone(), order, call };
        match self.place(flow, place).await {
            Ok(order) => Ok((&order).into()),
            Err(failure) => Err(failure.with("request_id", request_id).with("order_id", order_id)),
        }
    }

    async fn place(&self, flow: CreateOrder, place: Permit) -> Result<Order, Failure> {
        let (answer, placed) = oneshot::channel();
        let releases = self.places.release.clone();
        let work = async move {
            if let Err(failure) = flow.check().await {
                let _ = answer.send(place.record_outcome(flow.call.deadline, Err(failure)));
                return;
            }
            // Nothing is reserved for a caller that has left by now.
            if answer.is_closed() {
                return;
            }
            let (placed, holds) = match flow.place().await {
                Ok(order) => (Ok(order), false),
                Err(stopped) => (Err(stopped.failure), stopped.holds),
            };
            // An error means that the caller has left.
            let _ = answer.send(place.record_outcome(flow.call.deadline, placed));
            drop(place);
            if !holds {
                return;
            }
            match releases.enter(None) {
                Ok(_place) => flow.release().await,
                Err(_) => {
                    tracing::info!(order = %flow.order.id, "a reservation was not released: it will expire")
                }
            }
        };
        self.bridge.begin(work).await;
        placed.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Reads an order.
    pub async fn get(&self, request: pb::GetOrderRequest, call: CallContext) -> Result<pb::Order, Failure> {
        let place = enter(&self.places.get, "GetOrder", &call)?;
        let id = request::find(&request).map_err(Failure::invalid)?;
        call.span.note("order.id", &id);
        let order = place.record_outcome(call.deadline, update::get(&self.records, id, &call).await);
        order.map(|order| (&order).into()).map_err(|failure| failure.with("order_id", id.to_string()))
    }

    /// Changes an order's status.
    pub async fn update(
        &self,
        request: pb::UpdateOrderStatusRequest,
        call: CallContext,
    ) -> Result<pb::Order, Failure> {
        let place = enter(&self.places.update, "UpdateOrderStatus", &call)?;
        let change = Change::parse(&request).map_err(Failure::invalid)?;
        let (id, records) = (change.id, self.records.clone());
        call.span.note("order.id", &id);
        // An update that was sent is not cancelled if the caller leaves: it counts towards the caller's share to its
        // end.
        let (answer, updated) = oneshot::channel();
        let work = async move {
            let updated = update::update(&records, &change, &call).await;
            // An error means that the caller has left.
            let _ = answer.send(place.record_outcome(call.deadline, updated));
        };
        self.bridge.begin(work).await;
        match updated.await.unwrap_or_else(|_| Err(lost())) {
            Ok(order) => Ok((&order).into()),
            Err(failure) => Err(failure.with("order_id", id.to_string())),
        }
    }

    /// Lists orders. The permit is held until the page is sent.
    pub async fn list(
        &self,
        request: pb::ListOrdersRequest,
        call: CallContext,
    ) -> Result<(pb::ListOrdersResponse, Permit), Failure> {
        let place = enter(&self.places.list, "ListOrders", &call)?;
        let mut query = Query::parse(&request).map_err(Failure::invalid)?;
        query.customer = tenancy::narrow(query.customer, &call)?;
        let page = list::list(&self.records, &self.feed, &query, &call).await;
        place.record_outcome(call.deadline, page).map(|page| (page, place))
    }

    /// The orders to watch, the sequence after which the watch begins (that of its token, or the record's last), and
    /// its permit.
    pub async fn follow(
        &self,
        request: pb::WatchOrdersRequest,
        call: CallContext,
    ) -> Result<(Whose, u64, feed::WatchPermit), Failure> {
        let place = self.feed.enter(&call)?;
        let Follow { whose, token } = Follow::parse(&request).map_err(Failure::invalid)?;
        let whose = tenancy::narrow_follow(whose, &call)?;
        if let Whose::Order(id) = &whose {
            call.span.note("order.id", id);
        }
        let invalid = |text| Failure::invalid(vec![FieldViolation::new("resume_token", text)]);
        let token = token
            .map(|token| self.feed.tokens().read_resume(&token))
            .transpose()
            .map_err(|_| invalid("must be a resume_token of this service, unchanged"))?;
        if let (Whose::Order(id), Some(_)) = (&whose, call.tenant.one()) {
            let _turn = self.feed.turn(&call).await?;
            // The customer of an order never changes.
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

    /// First and last sequence of the record. Waits for a read permit.
    async fn range(&self, call: &CallContext) -> Result<Range, Failure> {
        let _turn = self.feed.turn(call).await?;
        self.records.range(call).await
    }
}

/// A task ends without an answer only if it panics, which is logged where it happens.
fn lost() -> Failure {
    Failure::new(Reason::Internal, "the call ended without an answer").delivered(Delivered::Unknown)
}

fn enter(gate: &Arc<ConcurrencyLimit>, rpc: &str, call: &CallContext) -> Result<Permit, Failure> {
    let place = gate.enter(call.shares());
    place.map_err(|full| full.failure(&format!("/orders.v1.OrderService/{rpc}"), SHED))
}
