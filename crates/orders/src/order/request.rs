//! Parsed requests: nothing about them is checked again after this file. All field violations of a request are reported
//! together. Must not depend on NATS or gRPC.

use contract::Item;
use contract::item::same;
use contract::limits::Reader;
use contract::orders::v1 as pb;
use order_streams::order::{Moment, OrderBody};
use order_streams::status::Status;
use uuid::Uuid;
use wire::FieldViolation;

/// The namespace of order ids (UUIDv5). Must never change: repeats would become new orders.
const NAMESPACE: Uuid = Uuid::from_u128(0x2b0e_7c84_53a1_4d67_9f12_6c8e_40d9_a5b3);

/// An order to place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// Its id, derived from the principal and the request id, so that a repeat is recognised.
    pub id: Uuid,
    /// The request id: the caller's, or a generated one.
    pub request_id: Box<str>,
    /// Whether the request id was generated here, so that it cannot have been used before.
    pub made: bool,
    /// The customer id.
    pub customer: Box<str>,
    /// The items to order.
    pub items: Vec<Item>,
}

/// A status change to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The order id.
    pub id: Uuid,
    /// The new status; never EXPIRED.
    pub to: Status,
    /// The etag that the order has to have. Opaque: a malformed one matches no order.
    pub etag: Option<Box<str>>,
    /// The reason given.
    pub reason: Box<str>,
}

/// A page to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Only orders of this customer.
    pub customer: Option<Box<str>>,
    /// Only orders with one of these statuses; empty: any.
    pub statuses: Vec<Status>,
    /// The most orders of the page.
    pub size: usize,
    /// Where to continue; not checked here, as only the feed can.
    pub token: Option<Box<str>>,
}

/// Orders to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// Which orders.
    pub whose: Whose,
    /// Where to continue; not checked here, as only the feed can.
    pub token: Option<Box<str>>,
}

/// Which orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// All.
    All,
    /// One.
    Order(Uuid),
    /// A customer's.
    Customer(Box<str>),
}

impl NewOrder {
    /// Parses a request of this principal (empty without authentication).
    pub fn parse(request: pb::CreateOrderRequest, principal: &str) -> Result<NewOrder, Vec<FieldViolation>> {
        let mut reader = Reader::default();
        let request_id = reader.request_id("request_id", &request.request_id);
        let customer = reader.customer_id("customer_id", &request.customer_id);
        let items = Item::read_all(&mut reader, "items", &request.items);
        let (request_id, customer, items) = reader.finish(request_id.zip(customer).zip(items)).map(flat)?;
        let made = request_id.is_empty();
        let request_id = if made { Uuid::new_v4().to_string().into() } else { request_id };
        Ok(NewOrder { id: order_id(principal, &request_id), request_id, made, customer, items })
    }

    /// The order as it is recorded at `now`.
    pub fn placed(&self, now: Moment) -> OrderBody {
        OrderBody::new(self.id, self.customer.clone(), self.items.clone(), now)
    }

    /// Whether it asks for exactly this order: the same customer and the same items, in any order.
    pub fn asks_for(&self, order: &OrderBody) -> bool {
        self.customer == order.customer
            && same(self.items.iter().map(Item::line), order.items.iter().map(Item::line))
    }
}

fn flat<A, B, C>(((a, b), c): ((A, B), C)) -> (A, B, C) {
    (a, b, c)
}

/// The id of an order: always the same for a principal and a request id.
pub fn order_id(principal: &str, request_id: &str) -> Uuid {
    // A request id contains no \0, so the separator is unambiguous.
    Uuid::new_v5(&NAMESPACE, format!("{principal}\0{request_id}").as_bytes())
}

/// Parses the id of the order to get.
pub fn find(request: &pb::GetOrderRequest) -> Result<Uuid, Vec<FieldViolation>> {
    let mut reader = Reader::default();
    let id = reader.order_id("order_id", &request.order_id);
    reader.finish(id)
}

impl Change {
    /// Parses a request.
    pub fn parse(request: &pb::UpdateOrderStatusRequest) -> Result<Change, Vec<FieldViolation>> {
        let mut reader = Reader::default();
        let id = reader.order_id("order_id", &request.order_id);
        let to = Status::from_wire(request.status).filter(|status| *status != Status::Expired);
        if to.is_none() {
            reader.fault("status", "must be PENDING, CONFIRMED, SHIPPED, DELIVERED or CANCELLED");
        }
        let reason = reader.reason("reason", &request.reason);
        let (id, to, reason) = reader.finish(id.zip(to).zip(reason)).map(flat)?;
        Ok(Change { id, to, etag: given(&request.etag), reason })
    }
}

impl Query {
    /// Parses a request.
    pub fn parse(request: &pb::ListOrdersRequest) -> Result<Query, Vec<FieldViolation>> {
        let mut reader = Reader::default();
        let customer = customer(&mut reader, &request.customer_id);
        let mut statuses = Vec::new();
        let many = request.statuses.len() > Status::ALL.len();
        if many {
            reader.fault("statuses", format!("must be at most {} values", Status::ALL.len()));
        }
        for (index, number) in request.statuses.iter().enumerate().filter(|_| !many) {
            match Status::from_wire(*number) {
                Some(status) if statuses.contains(&status) => {}
                Some(status) => statuses.push(status),
                None => reader.fault(format!("statuses[{index}]"), "must be a status"),
            }
        }
        let size = reader.page_size("page_size", request.page_size);
        let (customer, size) = reader.finish(customer.zip(size))?;
        Ok(Query { customer, statuses, size, token: given(&request.page_token) })
    }
}

impl Follow {
    /// Parses a request.
    pub fn parse(request: &pb::WatchOrdersRequest) -> Result<Follow, Vec<FieldViolation>> {
        let mut reader = Reader::default();
        let customer = customer(&mut reader, &request.customer_id);
        let order = match request.order_id.as_str() {
            "" => Some(None),
            id => reader.order_id("order_id", id).map(Some),
        };
        if !request.order_id.is_empty() && !request.customer_id.is_empty() {
            reader.fault("customer_id", "must be empty if order_id is set");
        }
        let whose = match reader.finish(order.zip(customer))? {
            (Some(order), _) => Whose::Order(order),
            (None, Some(customer)) => Whose::Customer(customer),
            (None, None) => Whose::All,
        };
        Ok(Follow { whose, token: given(&request.resume_token) })
    }
}

/// A customer to filter by; `Some(None)` for no filter.
fn customer(reader: &mut Reader, text: &str) -> Option<Option<Box<str>>> {
    match text {
        "" => Some(None),
        text => reader.customer_id("customer_id", text).map(Some),
    }
}

fn given(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use contract::inventory::v1::Item as PbItem;
    use contract::limits::{CUSTOMER_ID, ITEMS, QUANTITY, REQUEST_ID};
    use proptest::prelude::*;

    use super::*;

    fn request(customer: &str, items: &[(&str, u32)]) -> pb::CreateOrderRequest {
        let items = items
            .iter()
            .map(|(product, quantity)| PbItem { product_id: (*product).into(), quantity: *quantity });
        pb::CreateOrderRequest {
            request_id: "r-1".into(),
            customer_id: customer.into(),
            items: items.collect(),
        }
    }

    fn fields(faults: Vec<FieldViolation>) -> Vec<String> {
        faults.into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn every_fault_of_a_request_is_named_at_once() {
        let bad = pb::CreateOrderRequest {
            request_id: "not an id".into(),
            ..request("", &[("lamp", 0), ("", 1), ("lamp", 2), ("desk", 1_000_001)])
        };
        let faults = fields(NewOrder::parse(bad, "").unwrap_err());
        let expected = [
            "request_id",
            "customer_id",
            "items[0].quantity",
            "items[1].product_id",
            "items[2].product_id",
            "items[3].quantity",
        ];
        assert_eq!(faults, expected);
        let many: Vec<_> = (0..501).map(|number| format!("p{number}")).collect();
        let many: Vec<_> = many.iter().map(|product| (product.as_str(), 1)).collect();
        assert_eq!(fields(NewOrder::parse(request("c", &many), "").unwrap_err()), ["items"]);
        assert_eq!(fields(NewOrder::parse(request("c", &[]), "").unwrap_err()), ["items"]);
    }

    #[test]
    fn a_repeat_has_the_same_id_and_another_caller_has_not() {
        let parse = |principal| NewOrder::parse(request("c", &[("lamp", 1)]), principal).unwrap();
        assert_eq!(parse("ann"), parse("ann"));
        assert_ne!(parse("ann").id, parse("bob").id);
        let nameless =
            || pb::CreateOrderRequest { request_id: String::new(), ..request("c", &[("lamp", 1)]) };
        let (one, two) = (NewOrder::parse(nameless(), "").unwrap(), NewOrder::parse(nameless(), "").unwrap());
        assert!(one.made && one.id != two.id && !one.request_id.is_empty());
        let named = pb::CreateOrderRequest { request_id: one.request_id.to_string(), ..nameless() };
        assert_eq!(NewOrder::parse(named, "").unwrap().id, one.id);
    }

    #[test]
    fn the_system_alone_expires_orders() {
        let to = |status: i32| {
            let id = Uuid::nil().to_string();
            Change::parse(&pb::UpdateOrderStatusRequest { order_id: id, status, ..Default::default() })
        };
        for status in [pb::OrderStatus::Expired as i32, pb::OrderStatus::Unspecified as i32, 99] {
            assert_eq!(fields(to(status).unwrap_err()), ["status"]);
        }
        assert_eq!(to(pb::OrderStatus::Shipped as i32).unwrap().to, Status::Shipped);
    }

    #[test]
    fn filters_are_read_and_their_faults_named() {
        let list = pb::ListOrdersRequest {
            customer_id: "x".repeat(129),
            statuses: vec![1, 0, 1, 77],
            page_size: 1_001,
            page_token: String::new(),
        };
        let faults = fields(Query::parse(&list).unwrap_err());
        assert_eq!(faults, ["customer_id", "statuses[1]", "statuses[3]", "page_size"]);
        let fine =
            Query::parse(&pb::ListOrdersRequest { statuses: vec![1, 1, 6], ..Default::default() }).unwrap();
        assert_eq!((fine.customer, fine.size), (None, 50));
        assert_eq!(fine.statuses, [Status::Pending, Status::Expired]);
        let many = pb::ListOrdersRequest { statuses: vec![77; 1 << 20], ..Default::default() };
        assert_eq!(fields(Query::parse(&many).unwrap_err()), ["statuses"]);
        let both = pb::WatchOrdersRequest {
            order_id: Uuid::nil().to_string(),
            customer_id: "c".into(),
            resume_token: String::new(),
        };
        assert_eq!(fields(Follow::parse(&both).unwrap_err()), ["customer_id"]);
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_within_the_limits_and_the_rest_is_refused(
            request_id in "[a-z_ -]{0,70}",
            customer in "\\PC{0,140}|.{0,4}",
            items in proptest::collection::vec(("[a-c./ ]{0,2}", 0_u32..3), 0..6),
        ) {
            let pairs: Vec<_> = items.iter().map(|(product, quantity)| (product.as_str(), *quantity)).collect();
            let request = pb::CreateOrderRequest { request_id, ..request(&customer, &pairs) };
            match NewOrder::parse(request, "") {
                Err(faults) => prop_assert!(!faults.is_empty()),
                Ok(order) => {
                    prop_assert!(order.request_id.len() <= REQUEST_ID && !order.request_id.is_empty());
                    prop_assert!((1..=CUSTOMER_ID).contains(&order.customer.chars().count()));
                    prop_assert!(ITEMS.contains(&order.items.len()));
                    prop_assert!(order.items.iter().all(|item| QUANTITY.contains(&item.quantity)));
                }
            }
        }
    }
}
