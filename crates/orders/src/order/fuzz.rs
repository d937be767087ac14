//! Properties that hold for any bytes of a request: parsed values are within their limits, and what is written from them
//! is read back from the record as it was. Run by the fuzzers in fuzz/, and on their corpus in every test run.

use contract::limits::{CUSTOMER_ID, REASON, REQUEST_ID};
use contract::orders::v1 as pb;
use contract::subject::{CREATED, UPDATED};
use contract::{Item, header};
use order_streams::entry::{Entry, Last};
use order_streams::event::Event;
use order_streams::order::{Moment, Order, OrderBody};
use order_streams::status::Status;
use prost::Message;

use super::event;
use super::request::{Change, Follow, NewOrder, Query, Whose, find};
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
    let again = NewOrder::parse(request, &call.principal).expect("a parsed request can be parsed again");
    assert_eq!(again.id == order.id, !order.made, "a repeat has the same order id");
    let call = CallContext { request_id: Some(order.request_id.clone()), ..call.clone() };
    let body = order.placed(Moment::now());
    let event = event::created(&body, &call).expect("an order can be written");
    assert_eq!(event.subject, format!("{CREATED}{}", order.id));
    allowed(&event);
    read_back(&event, body, 9);
}

fn step(change: &Change, call: &CallContext) {
    let item = Item { product: "lamp".into(), quantity: 1 };
    let body = OrderBody::new(change.id, "Zoë".into(), vec![item], Moment::now());
    let body = body.step(change.to, &change.reason, Moment::now());
    let event = event::updated(&body, 1, call).expect("an order can be written");
    assert_eq!(event.subject, format!("{UPDATED}{}", change.id));
    allowed(&event);
    read_back(&event, body, 1);
}

/// The record's parser checks all limits of an order.
fn read_back(event: &Event, body: OrderBody, first: u64) {
    let headers = event.header_map();
    let entry = Entry::parse(9, &event.subject, Some(&headers), &event.payload).expect("it was written");
    assert_eq!(
        entry.mark().map(|mark| mark.map(|mark| (mark.customer, mark.status))),
        Ok(Some((body.customer.clone(), body.status)))
    );
    assert_eq!(entry.last(), Ok(Last::Order(Order { body, first, last: 9 })));
}

fn printable(text: &str, least: usize, most: usize) {
    assert!((least..=most).contains(&text.chars().count()), "{text:?} is too long or too short");
    assert!(!text.chars().any(char::is_control), "{text:?} has a control character");
}

fn is_id(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_-".contains(&b)
}

/// Checks that the headers which a call adds stay within their alphabets; the others are read back.
fn allowed(event: &Event) {
    for (name, value) in &event.headers {
        let good = match *name {
            header::OPERATION_ID | header::REQUEST_ID | header::TRACEPARENT => value.bytes().all(is_id),
            header::TRACESTATE => value.bytes().all(|b| (b' '..=b'~').contains(&b)),
            header::ORDER_STATUS
            | header::ORDER_CREATED_SEQUENCE
            | header::ORDER_CUSTOMER
            | header::CONTENT_TYPE => value.bytes().all(|b| b.is_ascii_graphic()),
            _ => false,
        };
        assert!(good, "{name}: {value:?}");
    }
}
