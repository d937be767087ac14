//! Properties that hold for any bytes of a request or of the record: parsed values are within their limits, and what is
//! written from them stays within the alphabets of subjects and headers. Run by the fuzzers in fuzz/, and on their
//! corpus in every test run.

use contract::limits::{CUSTOMER_ID, ITEMS, QUANTITY, REASON, REQUEST_ID, is_product_id};
use contract::orders::v1 as pb;
use contract::subject::{CREATED, UPDATED};
use contract::{Item, header};
use prost::Message;
use tokio::time::Instant;

use super::event::{Event, Last, Stored};
use super::model::{Moment, OrderBody};
use super::request::{Change, Follow, NewOrder, Query, Whose, find};
use super::status::Status;
use bridge::call::CallContext;

/// How many rpcs there are for [`request`].
pub const RPCS: u8 = 5;

/// A request of one of the rpcs that have code, in the protobuf encoding.
///
/// # Panics
///
/// If a property does not hold.
pub fn request(rpc: u8, message: &[u8], call: &CallContext) {
    match rpc {
        0 => create(message, call),
        1 => drop(pb::GetOrderRequest::decode(message).map(|request| find(&request))),
        2 => {
            let Ok(request) = pb::UpdateOrderStatusRequest::decode(message) else { return };
            if let Ok(change) = Change::parse(&request) {
                assert_ne!(change.to, Status::Expired, "the system alone expires orders");
                printable(&change.reason, 0, REASON);
                step(&change, call);
            }
        }
        3 => {
            let Ok(request) = pb::ListOrdersRequest::decode(message) else { return };
            if let Ok(query) = Query::parse(&request) {
                assert!((1..=1_000).contains(&query.size) && query.statuses.len() <= Status::ALL.len());
                query.customer.iter().for_each(|customer| printable(customer, 1, CUSTOMER_ID));
            }
        }
        _ => {
            let Ok(request) = pb::WatchOrdersRequest::decode(message) else { return };
            if let Ok(Follow { whose: Whose::Customer(customer), .. }) = Follow::parse(&request) {
                printable(&customer, 1, CUSTOMER_ID);
            }
        }
    }
}

fn create(message: &[u8], call: &CallContext) {
    let Ok(request) = pb::CreateOrderRequest::decode(message) else { return };
    let Ok(order) = NewOrder::parse(request.clone(), &call.principal) else { return };
    assert!((1..=REQUEST_ID).contains(&order.request_id.len()) && order.request_id.bytes().all(is_id));
    assert_eq!(order.made, request.request_id.is_empty());
    sound(&OrderBody::place(&order, Moment::now()));
    let again = NewOrder::parse(request, &call.principal).expect("a parsed request can be parsed again");
    assert_eq!(again.id == order.id, !order.made, "a repeat has the same order id");
    let call = CallContext { request_id: Some(order.request_id.clone()), ..call.clone() };
    let event =
        Event::created(&OrderBody::place(&order, Moment::now()), &call).expect("an order can be written");
    assert_eq!(event.subject, format!("{CREATED}{}", order.id));
    allowed(&event);
}

fn step(change: &Change, call: &CallContext) {
    let item = Item { product: "lamp".into(), quantity: 1 };
    let order = NewOrder {
        id: change.id,
        request_id: "r".into(),
        made: false,
        customer: "Zoë".into(),
        items: vec![item],
    };
    let body = OrderBody::place(&order, Moment::now()).step(change.to, &change.reason, Moment::now());
    let event = Event::updated(&body, 1, call).expect("an order can be written");
    assert_eq!(event.subject, format!("{UPDATED}{}", change.id));
    allowed(&event);
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

fn is_id(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_-".contains(&b)
}

/// Checks that an event's headers stay within their alphabets.
fn allowed(event: &Event) {
    for (name, value) in &event.headers {
        let good = match *name {
            header::OPERATION_ID | header::REQUEST_ID | header::TRACEPARENT => value.bytes().all(is_id),
            header::ORDER_STATUS => Status::from_name(value).is_some(),
            header::ORDER_CREATED_SEQUENCE => value.bytes().all(|b| b.is_ascii_digit()),
            header::ORDER_CUSTOMER => value.bytes().all(|b| is_id(b) || b".~%".contains(&b)),
            header::TRACESTATE => value.bytes().all(|b| (b' '..=b'~').contains(&b)),
            header::CONTENT_TYPE => value == "application/json",
            _ => false,
        };
        assert!(good, "{name}: {value:?}");
    }
}

/// A stored message: its subject, lines of headers, an empty line, and its payload. What is read of it lies where the
/// order's lock looks, keeps to the limits, and is the same when it is written again.
///
/// # Panics
///
/// If a property does not hold.
pub fn event(data: &[u8]) {
    let (head, payload) = cut(data, b"\n\n");
    let Ok(head) = str::from_utf8(head) else { return };
    let mut lines = head.split('\n');
    let subject = lines.next().unwrap_or_default();
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let look = |name: &'static str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let stored = Stored { subject, sequence: 9, header: look };
    let mark = stored.mark();
    if let Ok(Some(mark)) = &mark {
        assert!(mark.first <= 9 && !mark.customer.is_empty());
        at_its_place(subject, mark.id);
    }
    let Ok(Last::Order(order)) = stored.read(payload) else { return };
    at_its_place(subject, order.body.id);
    sound(&order.body);
    let call = CallContext::until(Instant::now());
    let written = if order.first == 9 {
        Event::created(&order.body, &call)
    } else {
        Event::updated(&order.body, order.first, &call)
    };
    let written = written.expect("an order that was read can be written");
    assert_eq!(written.subject, subject);
    allowed(&written);
    let look = |name: &'static str| {
        written.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    };
    let again = Stored { subject: &written.subject, sequence: 9, header: look };
    assert_eq!(again.read(&written.payload).ok(), Some(Last::Order(order)));
    assert!(again.mark().is_ok());
}

/// An order's lock and reads use a filter: an entry that does not match it must not be taken for the order's.
fn at_its_place(subject: &str, id: uuid::Uuid) {
    let entries = contract::subject::entries(id);
    let place = entries.strip_prefix("orders.*.*").unwrap_or_default();
    assert!(subject.ends_with(place), "{subject} is not under {entries}");
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
