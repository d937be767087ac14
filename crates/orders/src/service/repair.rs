//! Repair, for an operator's commands: reads orders, and writes status changes again that the record has lost. A change
//! passes the status machine and the order's lock, as a client's does.

use nats::Store;
use order_streams::entry::Last;
use order_streams::order::Order;
use order_streams::status::Status;
use uuid::Uuid;
use wire::Failure;

use super::store::Records;
use super::update::update;
use crate::order::request::Change;
use bridge::call::CallContext;

/// Reads orders and changes their status.
#[derive(Clone)]
pub struct Repair {
    records: Records,
}

impl Repair {
    /// Repairs the record in this store.
    pub fn new(store: Store) -> Repair {
        Repair { records: Records::new(store) }
    }

    /// An order's last entry.
    pub async fn read(&self, id: Uuid, call: &CallContext) -> Result<Option<Last>, Failure> {
        self.records.read(id, call).await
    }

    /// Moves an order that has not changed since it was `seen` to a status that it had before, through the steps
    /// between.
    pub async fn advance(
        &self,
        seen: &Order,
        to: Status,
        reason: &str,
        call: &CallContext,
    ) -> Result<(), Failure> {
        let between = seen.body.status == Status::Pending && to == Status::Shipped;
        let mut etag = seen.etag();
        for to in between.then_some(Status::Confirmed).into_iter().chain([to]) {
            let change = Change { id: seen.body.id, to, etag: Some(etag.into()), reason: reason.into() };
            etag = update(&self.records, &change, call).await?.etag();
        }
        Ok(())
    }
}
