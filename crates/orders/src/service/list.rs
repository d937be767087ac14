//! ListOrders: the index selects the orders of a page, the record supplies their content.

use std::time::Duration;

use contract::OrderReason;
use contract::orders::v1 as pb;
use futures_util::{StreamExt, stream};
use order_streams::entry::Last;
use order_streams::order::Order;
use order_streams::status::Status;
use prost::Message;
use tokio::time::timeout;
use wire::{Delivered, Failure, FieldViolation, Reason};

use super::store::Records;
use crate::feed::index::Filter;
use crate::feed::{Feed, token};
use crate::order::request::Query;
use bridge::call::CallContext;

/// Concurrent reads for one page; each takes a read permit.
const READS: usize = 16;
/// Bytes of a page: gRPC clients accept messages of up to 4 MiB by default. A larger page ends early.
const BYTES: usize = 3 << 20;
/// How long a list waits for the index of a gateway that has just started.
const SOON: Duration = Duration::from_millis(500);

/// A page that includes every change that was acknowledged before the call.
pub(super) async fn list(
    records: &Records,
    feed: &Feed,
    query: &Query,
    call: &CallContext,
) -> Result<pb::ListOrdersResponse, Failure> {
    let stamp = stamp(query);
    let before =
        query.token.as_deref().map(|token| feed.tokens().read_page(token, stamp)).transpose().map_err(
            |_| Failure::invalid(vec![FieldViolation::new("page_token", "must be from a list with the same filters and the same stream; a restore invalidates it. List from the beginning")]),
        )?;
    // A short history is read within this time.
    timeout(SOON, feed.caught_up()).await.map_err(|_| Feed::building())?;
    let turn = feed.turn(call).await?;
    let reached = records.range(call).await?.last;
    drop(turn);
    let filter = Filter { customer: query.customer.as_deref(), statuses: &query.statuses };
    let page = feed.page(&filter, before, query.size, reached, call).await?;
    let mut reads = stream::iter(page.orders)
        .map(|(created, last)| async move {
            let read = async {
                let _turn = feed.turn(call).await?;
                read(records, created, last, call).await
            };
            (created, read.await)
        })
        .buffered(READS);
    let (mut orders, mut bytes, mut next) = (Vec::new(), 0, page.next);
    let mut position = before;
    while let Some((created, order)) = reads.next().await {
        if let Some(order) = order?.filter(|order| wanted(query, order)) {
            let order = pb::Order::from(&order);
            bytes += order.encoded_len();
            if bytes > BYTES && !orders.is_empty() {
                next = position;
                break;
            }
            orders.push(order);
        }
        position = Some(created);
    }
    let next_page_token = next.map(|position| feed.tokens().page(stamp, position)).unwrap_or_default();
    Ok(pb::ListOrdersResponse { orders, next_page_token })
}

/// Filters again: the index finds customers by hash, and statuses by an entry that may be lost by now.
fn wanted(query: &Query, order: &Order) -> bool {
    query.customer.as_ref().is_none_or(|customer| *customer == order.body.customer)
        && (query.statuses.is_empty() || query.statuses.contains(&order.body.status))
}

/// The order with this first and last entry.
async fn read(
    records: &Records,
    created: u64,
    last: u64,
    call: &CallContext,
) -> Result<Option<Order>, Failure> {
    match records.at(last, call).await {
        Ok(Some(Last::Order(order))) => return Ok(Some(order)),
        Err(failure) => return left_out(failure),
        Ok(Some(Last::Tombstone(_)) | None) => {}
    }
    // The index was built from this very entry.
    if last > records.range(call).await?.last {
        let behind = Failure::new(Reason::StorageUnavailable, "the record is not up to date")
            .because(format_args!("the record is behind the index, which knows entry {last}"));
        return Err(behind.delivered(Delivered::No).retry_after(nats::failure::RETRY));
    }
    tracing::error!(
        sequence = last,
        created,
        "an entry of the record is lost; its order is read from its other entries"
    );
    let order = match records.at(created, call).await {
        Ok(Some(Last::Order(order))) => order,
        Ok(Some(Last::Tombstone(_)) | None) => return Ok(None),
        Err(failure) => return left_out(failure),
    };
    match records.read(order.body.id, call).await {
        Ok(Some(Last::Order(order))) => Ok(Some(order)),
        Ok(Some(Last::Tombstone(_)) | None) => Ok(None),
        Err(failure) => left_out(failure),
    }
}

/// Leaves out an order whose record cannot be read, so that the others are listed. GetOrder returns the error.
fn left_out(failure: Failure) -> Result<Option<Order>, Failure> {
    if failure.is(OrderReason::RecordUnreadable) { Ok(None) } else { Err(failure) }
}

/// A hash of the filter that a page token belongs to. The order of the statuses does not matter.
fn stamp(query: &Query) -> u64 {
    let statuses = Status::ALL.into_iter().filter(|status| query.statuses.contains(status));
    let names = statuses.map(|status| -> &str { status.name() });
    token::filter(query.customer.as_deref().into_iter().chain(["\n"]).chain(names))
}
