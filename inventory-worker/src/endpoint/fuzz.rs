//! Properties that hold for any payload from NATS: parsed values are within their limits. Run by the fuzzers in fuzz/,
//! and on their corpus in every test run.

use contract::Item;
use contract::inventory::v1::{
    AdjustStockRequest, GetStockRequest, ListReservationsRequest, ListStockRequest, ReleaseInventoryRequest,
    ReserveInventoryRequest,
};
use contract::limits::{ADJUSTMENTS, ITEMS, PAGE_SIZE, QUANTITY, REASON, REQUEST_ID, Reader, is_product_id};
use contract::orders::v1::CheckInventoryRequest;
use contract::route::Routed;
use uuid::Uuid;
use wire::{Failure, nestjs};

use super::{maintenance, page, reserve, stock};
use crate::stock::key;

/// A request's payload, in an envelope or not, as each endpoint reads it.
///
/// # Panics
///
/// If a parsed value breaks a limit, or a refused request has no field violation.
pub fn payload(data: &[u8]) {
    let payload = nestjs::payload(data);
    if let Some(request) = read::<CheckInventoryRequest>(payload) {
        let mut reader = Reader::default();
        let items = Item::read_all(&mut reader, "items", &request.items);
        if let Ok(items) = reader.finish(items) {
            within(&items);
        }
    }
    if let Some(request) = read::<GetStockRequest>(payload) {
        let mut reader = Reader::default();
        let product = reader.product_id("product_id", &request.product_id);
        assert_eq!(reader.finish(product).is_ok(), is_product_id(&request.product_id));
    }
    if let Some(Ok((size, after))) = read(payload).map(|request: ListStockRequest| stock::read_list(&request))
    {
        assert!((1..=PAGE_SIZE).contains(&size) && after.is_none_or(|product| is_product_id(&product)));
    }
    if let Some(Ok(adjustment)) = read(payload).map(|request: AdjustStockRequest| stock::read(&request)) {
        adjusted(&adjustment);
    }
    if let Some(Ok((_, items))) =
        read(payload).map(|request: ReserveInventoryRequest| reserve::read(&request))
    {
        within(&items);
    }
    if let Some(Ok((_, reason))) =
        read(payload).map(|request: ReleaseInventoryRequest| reserve::read_release(&request))
    {
        printable(&reason);
    }
    if let Some(Ok((orders, size, after))) =
        read(payload).map(|request: ListReservationsRequest| maintenance::read(&request))
    {
        let orders = orders.unwrap_or_default();
        assert!((1..=PAGE_SIZE).contains(&size) && orders.len() <= PAGE_SIZE);
        assert!(orders.is_sorted() && after.is_none_or(|after| orders.iter().all(|order| *order > after)));
    }
}

/// The request, if it is one; else checks that the error is short enough for a header.
fn read<R: Routed>(payload: &[u8]) -> Option<R> {
    match R::from_payload(payload) {
        Ok(request) => Some(request),
        Err(mismatch) => {
            let failure: Failure = super::unreadable(mismatch);
            assert!(failure.to_json().len() < 8_192, "a refusal repeats what was sent");
            None
        }
    }
}

fn within(items: &[Item]) {
    assert!(ITEMS.contains(&items.len()));
    for item in items {
        assert!(is_product_id(&item.product) && QUANTITY.contains(&item.quantity), "{item:?}");
        assert_eq!(items.iter().filter(|other| other.product == item.product).count(), 1, "{item:?}");
    }
}

fn adjusted((request, lines, reason): &stock::Adjustment) {
    let is_id = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    assert!((1..=REQUEST_ID).contains(&request.len()) && request.bytes().all(is_id));
    assert!(ADJUSTMENTS.contains(&lines.len()));
    assert!(lines.iter().all(|(product, delta)| is_product_id(product) && *delta != 0 && *delta != i32::MIN));
    printable(reason);
    let keys = ["", "jwt:ann", "jwt:bob"].map(|principal| key::of(principal, request));
    assert!(keys[0] != keys[1] && keys[1] != keys[2], "two callers' adjustments are two");
    assert!(keys[1..].iter().all(|known| key::of("", known) != *known), "nobody can choose another's");
}

fn printable(text: &str) {
    assert!(text.chars().count() <= REASON && !text.chars().any(char::is_control), "{text:?}");
}

/// A page token that is accepted is exactly the one that was made, and is valid only for its list.
///
/// # Panics
///
/// If a property does not hold.
pub fn token(data: &[u8]) {
    if let Some((order, _)) = data.split_first_chunk() {
        let order = Uuid::from_bytes(*order);
        let token = page::token_of(order);
        assert_eq!((page::order(&token), page::product(&token)), (Some(order), None));
    }
    let Ok(text) = str::from_utf8(data) else { return };
    let made = page::token(text);
    assert_eq!(page::product(&made).as_deref(), Some(text).filter(|text| is_product_id(text)));
    assert_eq!(page::order(&made), None);
    if let Some(product) = page::product(text) {
        assert_eq!(page::token(&product), text, "there is one token for a product");
    }
    if let Some(order) = page::order(text) {
        assert_eq!(page::token_of(order), text, "there is one token for an order");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzers_found_and_began_with_still_holds() {
        crate::replay::each("payload", super::payload);
        crate::replay::each("token", super::token);
    }
}
