//! The clerk: reads orders, and writes steps again that the record has lost, for an operator's commands. A step goes
//! through the status machine and under the order's lock, as a client's does.

use contract::Failure;
use link::Store;
use uuid::Uuid;

use super::event::Last;
use super::record::Order;
use super::request::Change;
use super::status::Status;
use super::store::Records;
use super::update::update;
use crate::call::Call;

/// Reads and moves orders.
#[derive(Clone)]
pub struct Clerk {
    records: Records,
}

impl Clerk {
    /// The clerk of the record in this store.
    pub fn new(store: Store) -> Clerk {
        Clerk { records: Records::new(store) }
    }

    /// An order's last entry.
    pub async fn read(&self, id: Uuid, call: &Call) -> Result<Option<Last>, Failure> {
        self.records.read(id, call).await
    }

    /// Moves an order that is as it was seen on to where it has been before, over the steps between.
    pub async fn advance(&self, seen: &Order, to: Status, reason: &str, call: &Call) -> Result<(), Failure> {
        let between = seen.body.status == Status::Pending && to == Status::Shipped;
        let mut etag = seen.etag();
        for to in between.then_some(Status::Confirmed).into_iter().chain([to]) {
            let change = Change { id: seen.body.id, to, etag: Some(etag.into()), reason: reason.into() };
            etag = update(&self.records, &change, call).await?.etag();
        }
        Ok(())
    }
}
