//! Orders: create, read, list, move along, follow. The domain of the gateway: it asks the services behind through the
//! bridge and keeps its record through `store`; it must never know gRPC.
//!
//! `status`, `request`, `record` and `event` are plain values and rules, and the feed builds on them; `store` is the
//! record; `flow`, `update` and `list` are the calls.

pub mod event;
mod flow;
mod list;
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::sleep;

use crate::bridge::Bridge;
use crate::call::Call;
use crate::feed::{Feed, Place};
use flow::Flow;
use record::Order;
use request::{Change, Follow, NewOrder, Query, Whose};
use store::Records;

/// Calls of one rpc in flight, per core.
const IN_FLIGHT: usize = 1_024;
/// Lists in flight, per core: each takes up to 3 MiB. Their reads share a bound in the feed.
const LISTS: usize = 64;
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

/// Places in flight.
struct Places {
    create: Arc<Semaphore>,
    get: Arc<Semaphore>,
    update: Arc<Semaphore>,
    list: Arc<Semaphore>,
}

impl Orders {
    /// The service over this bridge, with its record in this store.
    pub fn new(bridge: Bridge, store: Store, feed: Arc<Feed>) -> Orders {
        let places = |most| Arc::new(Semaphore::new(most));
        let places = Places {
            create: places(IN_FLIGHT),
            get: places(IN_FLIGHT),
            update: places(IN_FLIGHT),
            list: places(LISTS),
        };
        Orders { bridge, records: Records::new(store), feed, places: Arc::new(places) }
    }

    /// Places an order. From the reservation on it runs to its end also when the caller leaves; the bridge's tasks say
    /// when all such work is done. Every error of a valid request that had a place names the request id and the order
    /// id.
    pub async fn create(&self, request: pb::CreateOrderRequest, call: Call) -> Result<pb::Order, Failure> {
        let place = enter(&self.places.create, "CreateOrder")?;
        let order = NewOrder::parse(request, &call.principal).map_err(Failure::invalid)?;
        let (request_id, order_id) = (order.request_id.clone(), order.id.to_string());
        let call = Call { request_id: Some(request_id.clone()), ..call };
        let flow = Flow { bridge: self.bridge.clone(), records: self.records.clone(), order, call };
        match self.place(flow, place).await {
            Ok(order) => Ok((&order).into()),
            Err(failure) => Err(failure.with("request_id", request_id).with("order_id", order_id)),
        }
    }

    async fn place(&self, flow: Flow, place: OwnedSemaphorePermit) -> Result<Order, Failure> {
        flow.check().await?;
        let (answer, placed) = oneshot::channel();
        self.bridge.spawn(async move {
            let stopped = match flow.place().await {
                Ok(order) => {
                    // An error says that the caller has left.
                    let _ = answer.send(Ok(order));
                    return;
                }
                Err(stopped) => stopped,
            };
            let _ = answer.send(Err(stopped.failure));
            if stopped.holds {
                flow.release().await;
            }
            drop(place);
        });
        // The task ends without an answer only if it panics, which is logged where it happens.
        let lost = |_| Failure::new(Reason::Internal, "the call broke off").delivered(Delivered::Unknown);
        placed.await.unwrap_or_else(|error| Err(lost(error)))
    }

    /// Reads an order.
    pub async fn get(&self, request: pb::GetOrderRequest, call: Call) -> Result<pb::Order, Failure> {
        let _place = enter(&self.places.get, "GetOrder")?;
        let id = request::find(&request).map_err(Failure::invalid)?;
        update::get(&self.records, id, &call).await.map(|order| (&order).into())
    }

    /// Moves an order along.
    pub async fn update(
        &self,
        request: pb::UpdateOrderStatusRequest,
        call: Call,
    ) -> Result<pb::Order, Failure> {
        let _place = enter(&self.places.update, "UpdateOrderStatus")?;
        let change = Change::parse(&request).map_err(Failure::invalid)?;
        match update::update(&self.records, &change, &call).await {
            Ok(order) => Ok((&order).into()),
            Err(failure) => Err(failure.with("order_id", change.id.to_string())),
        }
    }

    /// Lists orders.
    pub async fn list(
        &self,
        request: pb::ListOrdersRequest,
        call: Call,
    ) -> Result<pb::ListOrdersResponse, Failure> {
        let _place = enter(&self.places.list, "ListOrders")?;
        let query = Query::parse(&request).map_err(Failure::invalid)?;
        list::list(&self.records, &self.feed, &query, &call).await
    }

    /// What a watch is about, the sequence after which it begins (that of its token, or the record's last), and its
    /// place.
    pub async fn follow(
        &self,
        request: pb::WatchOrdersRequest,
        call: Call,
    ) -> Result<(Whose, u64, Place), Failure> {
        let place = self.feed.enter()?;
        let Follow { whose, token } = Follow::parse(&request).map_err(Failure::invalid)?;
        let invalid = |text| Failure::invalid(vec![Fault::new("resume_token", text)]);
        let token = token
            .map(|token| self.feed.tokens().read_resume(&token))
            .transpose()
            .map_err(|_| invalid("must be a resume_token of this service, unchanged"))?;
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

/// What a service or the record says breaks the contract. `what` is logged, the message is for the caller.
fn violation(what: impl std::fmt::Display, message: &str) -> Failure {
    tracing::error!(%what, "the contract is broken");
    Failure::new(Reason::ContractViolation, message).delivered(Delivered::Yes)
}

fn enter(places: &Arc<Semaphore>, rpc: &str) -> Result<OwnedSemaphorePermit, Failure> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        Failure::overloaded(&format!("/orders.v1.OrderService/{rpc}"), "too many calls in flight", SHED)
    })
}
