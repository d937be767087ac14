//! A gateway of routes alone (`--orders=false`), in front of a NATS without JetStream.

use async_nats::service::ServiceExt as _;
use contract::inventory::v1::GetStockRequest;
use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::orders::v1::GetOrderRequest;
use contract::orders::v1::order_service_client::OrderServiceClient;
use futures_util::StreamExt;
use gateway::Gateway;
use gateway::config::Serve;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::harness::system::{reason, until};

/// Answers on these subjects, each in its queue group, as a micro service of anybody does.
async fn service(url: &str) -> async_nats::service::Service {
    let nats = async_nats::connect(url).await.unwrap();
    let service = nats.service_builder().start("anybody", "1.0.0").await.unwrap();
    for (subject, group) in [
        ("get_stock", "inventory-stock"),
        ("list_stock", "inventory-stock"),
        ("adjust_stock", "inventory-stock"),
        ("check_inventory", "inventory-check"),
    ] {
        let mut requests = service.endpoint_builder().queue_group(group).add(subject).await.unwrap();
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let stock = r#"{"stock":{"productId":"lamp","onHand":3}}"#;
                request.respond(Ok(stock.into())).await.unwrap();
            }
        });
    }
    service
}

#[tokio::test]
async fn without_orders_a_gateway_serves_routes_health_and_reflection_and_needs_no_jetstream() {
    let bare = local_nats::Options { config: Some("jetstream: disabled".to_owned()), ..Default::default() };
    let nats = tokio::task::spawn_blocking(|| local_nats::Server::with(bare)).await.unwrap().unwrap();
    let _service = service(&nats.url()).await;
    let gateway = Gateway::start(Serve { orders: Some(false), ..Serve::at(nats.url()) }).await.unwrap();
    let up =
        async || gateway.up("") == Some(true) && gateway.up("inventory.v1.InventoryService") == Some(true);
    until("the services are up", up).await;
    let address = format!("http://{}", gateway.grpc_addr());
    let channel: Channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    let request = GetStockRequest { product_id: "lamp".to_owned() };
    let reply = InventoryServiceClient::new(channel.clone()).get_stock(request).await.unwrap().into_inner();
    assert_eq!(reply.stock.unwrap().on_hand, 3);
    let order = GetOrderRequest::default();
    let refused = OrderServiceClient::new(channel.clone()).get_order(order).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unimplemented, "UNKNOWN_RPC"));
    assert!(crate::clients::services(channel).await.contains(&"inventory.v1.InventoryService".to_owned()));
    gateway.drain().await;
}
