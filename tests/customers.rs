//! Tenancy: which orders a caller sees, and that request ids are separate by caller.

use contract::inventory::v1 as inventory;
use contract::orders::v1 as orders;
use contract::orders::v1::Order;
use prost_reflect::prost::Message;
use serde_json::{Value, json};
use tonic::Code::{self, NotFound, PermissionDenied};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::harness::auth::AuthGateway;
use crate::harness::issuer::Issuer;
use crate::harness::system::{PATIENCE, System, new_order, reason};

/// A customer with a token.
struct Customer<'a> {
    guarded: &'a AuthGateway,
    token: String,
}

impl Customer<'_> {
    async fn ask<Q: Message, A: Message + Default>(&self, rpc: &str, message: Q) -> Result<A, Status> {
        let path = format!("/orders.v1.OrderService/{rpc}");
        let answer = self.guarded.call(&path, message.encode_to_vec().into(), &self.token).await?;
        Ok(A::decode(answer).unwrap())
    }

    async fn list(&self, request: orders::ListOrdersRequest) -> Result<orders::ListOrdersResponse, Status> {
        self.ask("ListOrders", request).await
    }

    async fn watch(
        &self,
        request: orders::WatchOrdersRequest,
    ) -> Result<orders::WatchOrdersResponse, Status> {
        self.ask("WatchOrders", request).await
    }

    async fn place(&self, request_id: &str) -> Result<Order, Status> {
        let items = new_order("lamp", 1).request.items;
        let request_id = request_id.to_owned();
        let request = orders::CreateOrderRequest { request_id, customer_id: "ann".to_owned(), items };
        let placed: orders::CreateOrderResponse = self.ask("CreateOrder", request).await?;
        Ok(placed.order.unwrap())
    }
}

#[tokio::test]
async fn a_customer_sees_the_own_orders_alone_whatever_tokens_come_along() {
    let system = System::builder().stock("lamp", 99).start().await;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    for customer in ["ann", "bob", "ann", "bob", "ann", "bob"] {
        system.place(&new_order("lamp", 1).by(customer)).await.unwrap();
    }
    let [ann, clerk] = [json!({"customer_id": "ann"}), json!({"sub": "clerk"})]
        .map(|claims| Customer { guarded: &guarded, token: issuer.with(claims) });
    let page = |customer: &str, page_token: &str| orders::ListOrdersRequest {
        customer_id: customer.to_owned(),
        page_size: 2,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    // Without a customer in the request it is the caller's own, page after page.
    let first = ann.list(page("", "")).await.unwrap();
    let second = ann.list(page("ann", &first.next_page_token)).await.unwrap();
    let all: Vec<Order> = [first.orders, second.orders].concat();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|order| order.customer_id == "ann"));
    // The page token of another caller's list is rejected.
    for others in [clerk.list(page("", "")).await.unwrap(), clerk.list(page("bob", "")).await.unwrap()] {
        let refused = ann.list(page("", &others.next_page_token)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    }
    // A resume token holds a position, not a customer.
    let begin = clerk.watch(orders::WatchOrdersRequest::default()).await.unwrap().resume_token;
    let theirs = system.place(&new_order("lamp", 1).by("bob")).await.unwrap().order_id;
    let mine = system.place(&new_order("lamp", 1).by("ann")).await.unwrap().order_id;
    let message = orders::WatchOrdersRequest { resume_token: begin, ..Default::default() }.encode_to_vec();
    let bearer = [("authorization", &*format!("Bearer {}", ann.token))];
    let path = "/orders.v1.OrderService/WatchOrders";
    let mut watch =
        crate::harness::codec::call(&guarded.channel, path, message.into(), &bearer).await.unwrap();
    let seen = loop {
        let message = tokio::time::timeout(PATIENCE, watch.message()).await.expect("a message in time");
        let message = message.unwrap().unwrap();
        if let Some(order) = orders::WatchOrdersResponse::decode(message).unwrap().order {
            break order.order_id;
        }
    };
    assert_eq!(seen, mine);
    let nobody = "6b1d1a52-5dd0-5e5c-9c3a-2f3a8f3b8b51";
    for order_id in [theirs.as_str(), nobody] {
        let order_id = order_id.to_owned();
        let hidden = ann.watch(orders::WatchOrdersRequest { order_id, ..Default::default() }).await;
        assert_eq!(hidden.unwrap_err().code(), NotFound);
    }
    let customer_id = "bob".to_owned();
    let other = ann.watch(orders::WatchOrdersRequest { customer_id, ..Default::default() }).await;
    assert_eq!(other.unwrap_err().code(), PermissionDenied);
}

#[tokio::test]
async fn a_request_id_is_its_callers_own() {
    let system = System::builder().stock("lamp", 9).start().await;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    let by = |claims: Value| Customer { guarded: &guarded, token: issuer.with(claims) };
    let (one, two) = (by(json!({"sub": "one"})), by(json!({"sub": "two"})));
    let first = one.place("id-1").await.unwrap();
    assert_eq!(one.place("id-1").await.unwrap().order_id, first.order_id);
    // Another token with the same subject is the same caller.
    let again = by(json!({"sub": "one", "jti": "2"}));
    assert_eq!(again.place("id-1").await.unwrap().order_id, first.order_id);
    assert_ne!(two.place("id-1").await.unwrap().order_id, first.order_id);
    let anonymous = system.place(&new_order("lamp", 1).by("ann").id("id-1")).await.unwrap();
    assert_ne!(anonymous.order_id, first.order_id);
    assert_eq!(system.stock("lamp").await, (9, 3));
}

#[tokio::test]
async fn an_adjustment_is_made_once_for_each_caller_who_names_it() {
    let system = System::builder().stock("lamp", 100).start().await;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    let [one, two] = ["one", "two"].map(|name| issuer.with(json!({"sub": name})));
    let adjust = async |token: &str, delta| {
        let adjustments = vec![inventory::Adjustment { product_id: "lamp".to_owned(), delta }];
        let request_id = "count-1".to_owned();
        let request = inventory::AdjustStockRequest { request_id, adjustments, reason: String::new() };
        let path = "/inventory.v1.InventoryService/AdjustStock";
        guarded.call(path, request.encode_to_vec().into(), token).await.map(drop)
    };
    for token in [&one, &one, &two, &two] {
        adjust(token, 1).await.unwrap();
    }
    assert_eq!(system.stock("lamp").await, (102, 0));
    // Only the caller's own use of the id counts.
    let reused = adjust(&two, 7).await.unwrap_err();
    let info = reused.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["id"].as_str()), ("REQUEST_ID_REUSED", "count-1"));
}
