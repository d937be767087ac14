//! Invalid input: the error names every violation, and nothing is written.

use contract::inventory::v1::{AdjustStockRequest, Adjustment, GetStockRequest, Item, ListStockRequest};
use contract::orders::v1::{CheckInventoryRequest, CreateOrderRequest, ListOrdersRequest, OrderStatus};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::system::{System, assert_refused, reason};

/// The fields that a status names.
#[track_caller]
fn fields<T: std::fmt::Debug>(result: Result<T, Status>) -> Vec<String> {
    let status = result.expect_err("a refusal");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "INVALID_REQUEST"),
        "{status:?}"
    );
    let request = status.get_details_bad_request().expect("BadRequest");
    request.field_violations.into_iter().map(|violation| violation.field).collect()
}

fn item(product: &str, quantity: u32) -> Item {
    Item { product_id: product.to_owned(), quantity }
}

#[tokio::test]
async fn all_faults_of_an_order_are_named_at_once_and_nothing_is_written() {
    let system = System::builder().stock("lamp", 9).start().await;
    let request = CreateOrderRequest {
        request_id: "a b".to_owned(),
        customer_id: "\u{202e}evil".to_owned(),
        items: vec![item("lamp", 0), item("*", 1), item("lamp", 1), item("rug", 1_000_001)],
    };
    let faults = fields(system.orders().create_order(request).await);
    assert_eq!(
        faults,
        [
            "request_id",
            "customer_id",
            "items[0].quantity",
            "items[1].product_id",
            "items[2].product_id",
            "items[3].quantity"
        ]
    );
    assert!(system.list(ListOrdersRequest::default()).await.unwrap().orders.is_empty());
    assert_eq!(system.stock("lamp").await, (9, 0));
}

#[tokio::test]
async fn limits_hold_at_their_edges() {
    let system = System::builder().stock("lamp", 9).start().await;
    let order = |customer: usize, items: usize| CreateOrderRequest {
        request_id: "r".repeat(64),
        customer_id: "ü".repeat(customer),
        items: (0..items).map(|n| item(&format!("{}{n}", "p".repeat(60)), 1_000_000)).collect(),
    };
    let mut orders = system.orders();
    assert_eq!(fields(orders.create_order(order(129, 500)).await), ["customer_id"]);
    assert_eq!(fields(orders.create_order(order(128, 501)).await), ["items"]);
    assert_eq!(fields(orders.create_order(order(128, 0)).await), ["items"]);
    assert_refused(orders.create_order(order(128, 500)).await, "INSUFFICIENT_STOCK");
    let list = |page_size| ListOrdersRequest { page_size, ..Default::default() };
    assert_eq!(fields(system.list(list(1_001)).await), ["page_size"]);
    assert_eq!(fields(system.list(list(-1)).await), ["page_size"]);
    system.list(list(1_000)).await.unwrap();
}

#[tokio::test]
async fn an_order_id_has_to_be_a_uuid_of_an_order() {
    let system = System::builder().start().await;
    let nobody = "6b1d1a52-5dd0-5e5c-9c3a-2f3a8f3b8b51";
    let status = system.get(nobody).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "NOT_FOUND"));
    assert_eq!(status.get_details_resource_info().unwrap().resource_name, nobody);
    for id in ["", "7", "*", "6b1d1a525dd05e5c9c3a2f3a8f3b8b51", "orders.>"] {
        assert_eq!(fields(system.get(id).await), ["order_id"], "{id}");
    }
    let order = contract::orders::v1::Order { order_id: nobody.to_owned(), ..Default::default() };
    assert_eq!(fields(system.update(&order, OrderStatus::Unspecified, "").await), ["status"]);
    assert_eq!(fields(system.update(&order, OrderStatus::Expired, "").await), ["status"]);
    assert_refused(system.update(&order, OrderStatus::Confirmed, "").await, "NOT_FOUND");
}

#[tokio::test]
async fn requests_that_are_passed_through_are_checked_as_well() {
    let system = System::builder().stock("lamp", 9).start().await;
    let request = CheckInventoryRequest { items: vec![item("lamp", 0), item("a*", 1)] };
    let faults = fields(system.orders().check_inventory(request).await);
    assert_eq!(faults, ["items[0].quantity", "items[1].product_id"]);
    let mut inventory = system.inventory();
    assert_eq!(fields(inventory.get_stock(GetStockRequest::default()).await), ["product_id"]);
    let request = ListStockRequest { page_size: 2_000, page_token: "x".to_owned() };
    assert_eq!(fields(inventory.list_stock(request).await), ["page_size", "page_token"]);
    let unknown = inventory.get_stock(GetStockRequest { product_id: "nope".to_owned() }).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    let lines = vec![Adjustment { product_id: "lamp".to_owned(), delta: 0 }];
    let request = AdjustStockRequest { adjustments: lines, ..Default::default() };
    assert_eq!(fields(inventory.adjust_stock(request).await), ["request_id", "adjustments[0].delta"]);
}

#[tokio::test]
async fn stock_is_adjusted_once_per_request_id_and_never_below_what_is_reserved() {
    let system = System::builder().stock("lamp", 5).stock("rug", 5).workers(2).start().await;
    system.order("lamp", 3).await.unwrap();
    assert_refused(system.adjust("lamp", -3).await, "BELOW_RESERVED");
    assert_refused(system.adjust("lamp", i32::MAX).await, "ABOVE_LIMIT");
    let line = |product: &str, delta| Adjustment { product_id: product.to_owned(), delta };
    let request = |delta| AdjustStockRequest {
        request_id: "count-1".to_owned(),
        adjustments: vec![line("rug", 1), line("lamp", delta)],
        reason: "shelf".to_owned(),
    };
    assert_refused(system.inventory().adjust_stock(request(-3)).await, "BELOW_RESERVED");
    for _ in 0..3 {
        let stock = system.inventory().adjust_stock(request(-2)).await.unwrap().into_inner().stock;
        assert_eq!((stock[0].on_hand, stock[1].on_hand, stock[1].available), (6, 3, 0));
    }
    assert_refused(system.inventory().adjust_stock(request(-1)).await, "REQUEST_ID_REUSED");
    assert_eq!((system.stock("lamp").await, system.stock("rug").await), ((3, 3), (6, 0)));
}

#[tokio::test]
async fn stock_is_listed_in_pages_by_product() {
    let mut builder = System::builder();
    for product in ["b", "a", "C", "c/1"] {
        builder = builder.stock(product, 1);
    }
    let system = builder.start().await;
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListStockRequest { page_size: 3, page_token };
        let page = system.inventory().list_stock(request).await.unwrap().into_inner();
        seen.extend(page.stock.into_iter().map(|stock| stock.product_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["C", "a", "b", "c/1"]);
}
