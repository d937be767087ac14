//! Properties that hold for any entry of ORDERS: what is read of it lies where the order's lock looks, keeps to the
//! limits, is the same for each part that is asked for, and is the same when it is written again. Run by the fuzzers in
//! fuzz/, and on their corpus in every test run.

use std::str::FromStr;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use contract::header;
use contract::limits::{CUSTOMER_ID, ITEMS, QUANTITY, REASON, is_product_id};

use crate::entry::{Entry, EntryKind, Last};
use crate::event::Event;
use crate::order::OrderBody;
use crate::status::Status;

/// A stored message: its subject, lines of headers, an empty line, and its payload.
///
/// # Panics
///
/// If a property does not hold.
pub fn event(data: &[u8]) {
    let (head, payload) = cut(data, b"\n\n");
    let Ok(head) = str::from_utf8(head) else { return };
    let mut lines = head.split('\n');
    let subject = lines.next().unwrap_or_default();
    let headers = lines.filter_map(|line| line.split_once(": ")).filter_map(|(name, value)| {
        Some((HeaderName::from_str(name).ok()?, HeaderValue::from_str(value).ok()?))
    });
    let headers: HeaderMap = headers.collect();
    let entry = match Entry::parse(9, subject, Some(&headers), payload) {
        Ok(entry) => entry,
        Err(damaged) => return assert_eq!((damaged.sequence, damaged.order), (9, None)),
    };
    at_its_place(&entry);
    if let Ok(Some(mark)) = entry.mark() {
        assert!(mark.first <= 9 && !mark.customer.is_empty() && mark.id == entry.id);
    }
    let last = match entry.last() {
        Ok(last) => last,
        Err(damaged) => {
            assert_eq!(damaged.order, Some(entry.id));
            return assert!(damaged.damage.to_string().len() <= 4 * 600, "{damaged}");
        }
    };
    let Last::Order(order) = last else { return assert_eq!(entry.kind, EntryKind::Tombstone) };
    // A worker reads less of it, and the same.
    let (status, items) = entry.items().expect("a worker reads what a gateway reads");
    assert_eq!((status, items), (order.body.status.to_pb(), order.body.items.clone()));
    sound(&order.body);
    let written = if order.first == 9 {
        Event::created(&order.body, [])
    } else {
        Event::updated(&order.body, order.first, [])
    };
    let written = written.expect("an order that was read can be written");
    assert_eq!(written.subject, subject);
    allowed(&written);
    let headers = written.header_map();
    let again = Entry::parse(9, &written.subject, Some(&headers), &written.payload).expect("it was written");
    assert_eq!(again.last(), Ok(Last::Order(order)));
    assert!(again.mark().is_ok());
}

/// An order's lock and reads use a filter: an entry that does not match it must not be taken for the order's.
fn at_its_place(entry: &Entry<'_>) {
    let entries = contract::subject::entries(entry.id);
    let place = entries.strip_prefix("orders.*.*").unwrap_or_default();
    assert!(entry.subject().ends_with(place), "{} is not under {entries}", entry.subject());
}

/// Checks that an order is within its limits.
fn sound(body: &OrderBody) {
    printable(&body.customer, 1, CUSTOMER_ID);
    printable(&body.reason, 0, REASON);
    assert!(ITEMS.contains(&body.items.len()), "{} items", body.items.len());
    assert!(
        body.items.iter().all(|item| is_product_id(&item.product) && QUANTITY.contains(&item.quantity)),
        "{:?}",
        body.items
    );
    assert!(body.created <= body.updated);
}

fn printable(text: &str, least: usize, most: usize) {
    assert!((least..=most).contains(&text.chars().count()), "{text:?} is too long or too short");
    assert!(!text.chars().any(char::is_control), "{text:?} has a control character");
}

/// Checks that an event's own headers stay within their alphabets.
fn allowed(event: &Event) {
    let is_id = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    for (name, value) in &event.headers {
        let good = match *name {
            header::OPERATION_ID => value.bytes().all(is_id),
            header::ORDER_STATUS => Status::from_name(value).is_some(),
            header::ORDER_CREATED_SEQUENCE => value.bytes().all(|b| b.is_ascii_digit()),
            header::ORDER_CUSTOMER => value.bytes().all(|b| is_id(b) || b".~%".contains(&b)),
            header::CONTENT_TYPE => value == "application/json",
            _ => false,
        };
        assert!(good, "{name}: {value:?}");
    }
}

/// Splits the data at a separator.
fn cut<'a>(data: &'a [u8], mark: &[u8]) -> (&'a [u8], &'a [u8]) {
    match data.windows(mark.len()).position(|window| window == mark) {
        Some(at) => (&data[..at], &data[at + mark.len()..]),
        None => (data, b""),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzers_found_and_began_with_still_holds() {
        crate::replay::each("event", super::event);
    }
}
