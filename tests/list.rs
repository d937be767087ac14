//! Lists of orders.

use contract::orders::v1::{ListOrdersRequest, Order, OrderStatus};

use crate::harness::system::{System, assert_refused, new_order};

async fn pages(system: &System, mut request: ListOrdersRequest) -> Vec<Order> {
    let mut orders = Vec::new();
    loop {
        let page = system.list(request.clone()).await.expect("a page");
        orders.extend(page.orders);
        if page.next_page_token.is_empty() {
            return orders;
        }
        request.page_token = page.next_page_token;
    }
}

fn ids(orders: &[Order]) -> Vec<&str> {
    orders.iter().map(|order| order.order_id.as_str()).collect()
}

#[tokio::test]
async fn a_list_is_newest_first_and_includes_what_another_gateway_just_wrote() {
    let system = System::builder().stock("lamp", 99).gateways(2).start().await;
    let mut placed = Vec::new();
    for _ in 0..7 {
        placed.insert(0, system.order("lamp", 1).await.unwrap());
        let listed = system.list(ListOrdersRequest::default()).await.unwrap();
        assert_eq!(listed.orders, placed);
    }
    let request = ListOrdersRequest { page_size: 3, ..Default::default() };
    assert_eq!(pages(&system, request).await, placed);
}

#[tokio::test]
async fn pages_are_not_moved_by_new_orders() {
    let system = System::builder().stock("lamp", 99).start().await;
    let mut placed = Vec::new();
    for _ in 0..6 {
        placed.insert(0, system.order("lamp", 1).await.unwrap());
    }
    let request = ListOrdersRequest { page_size: 2, ..Default::default() };
    let first = system.list(request.clone()).await.unwrap();
    system.order("lamp", 1).await.unwrap();
    let rest = pages(&system, ListOrdersRequest { page_token: first.next_page_token, ..request }).await;
    assert_eq!(ids(&[first.orders, rest].concat()), ids(&placed));
}

#[tokio::test]
async fn a_list_can_be_of_one_customer_and_of_some_statuses() {
    let system = System::builder().stock("lamp", 99).start().await;
    let anns = system.order("lamp", 1).await.unwrap();
    let bobs = system.place(&new_order("lamp", 1).by("bob ü")).await.unwrap();
    let gone = system.place(&new_order("lamp", 1).by("bob ü")).await.unwrap();
    let gone = system.update(&gone, OrderStatus::Cancelled, "").await.unwrap();
    let of = |customer: &str, statuses: &[OrderStatus]| ListOrdersRequest {
        customer_id: customer.to_owned(),
        statuses: statuses.iter().map(|status| (*status).into()).collect(),
        ..Default::default()
    };
    assert_eq!(pages(&system, of("bob ü", &[])).await, [gone.clone(), bobs.clone()]);
    assert_eq!(pages(&system, of("bob ü", &[OrderStatus::Pending])).await, std::slice::from_ref(&bobs));
    assert_eq!(pages(&system, of("", &[OrderStatus::Cancelled])).await, [gone]);
    assert_eq!(pages(&system, of("", &[OrderStatus::Pending])).await, [bobs, anns]);
    assert_eq!(pages(&system, of("nobody", &[])).await, []);
}

#[tokio::test]
async fn page_tokens_that_were_tampered_with_or_belong_elsewhere_are_refused() {
    let system = System::builder().stock("lamp", 9).start().await;
    for _ in 0..3 {
        system.order("lamp", 1).await.unwrap();
    }
    let request = ListOrdersRequest { page_size: 1, ..Default::default() };
    let token = system.list(request.clone()).await.unwrap().next_page_token;
    let mut tampered = token.clone().into_bytes();
    tampered[5] = if tampered[5] == b'x' { b'y' } else { b'x' };
    for page_token in ["x".to_owned(), String::from_utf8(tampered).unwrap()] {
        assert_refused(
            system.list(ListOrdersRequest { page_token, ..request.clone() }).await,
            "INVALID_REQUEST",
        );
    }
    let other = ListOrdersRequest { customer_id: "ann".to_owned(), page_token: token, ..request };
    assert_refused(system.list(other).await, "INVALID_REQUEST");
}
