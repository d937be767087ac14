//! A gateway with authentication, and a valid request of every rpc.

use bytes::Bytes;
use contract::inventory::v1 as inventory;
use contract::orders::v1 as orders;
use contract::orders::v1::OrderStatus;
use gateway::Gateway;
use prost_reflect::prost::Message;
use server::config::access::Access;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::codec::ask;
use crate::harness::system::{System, until};

/// A gateway with authentication.
pub struct AuthGateway {
    pub channel: Channel,
    pub gateway: Gateway,
}

impl AuthGateway {
    pub async fn start(system: &System, access: Access) -> AuthGateway {
        let config = gateway::config::Serve { access, ..system.gateway.clone() };
        let gateway = Gateway::start(config).await.expect("a gateway");
        let services = ["", "orders.v1.OrderService", "inventory.v1.InventoryService"];
        until("it serves", async || services.iter().all(|name| gateway.up(name) == Some(true))).await;
        let uri = format!("http://{}", gateway.grpc_addr());
        let channel = Channel::from_shared(uri).unwrap().connect_lazy();
        AuthGateway { channel, gateway }
    }

    /// Calls an rpc with a bearer token.
    pub async fn call(&self, path: &str, message: Bytes, token: &str) -> Result<Bytes, Status> {
        ask(&self.channel, path, message, &[("authorization", &format!("Bearer {token}"))]).await
    }

    pub async fn code(&self, path: &str, message: Bytes, token: &str) -> Code {
        self.call(path, message, token).await.map_or_else(|status| status.code(), |_| Code::Ok)
    }
}

/// A valid request of an rpc, for this customer and one of their orders.
pub fn request(path: &str, customer: &str, order: &str) -> Bytes {
    let (customer_id, order_id) = (customer.to_owned(), order.to_owned());
    let item = inventory::Item { product_id: "lamp".to_owned(), quantity: 1 };
    let request_id = uuid::Uuid::new_v4().to_string();
    let none = String::new;
    let message = match path.rsplit('/').next().unwrap() {
        "CreateOrder" => {
            orders::CreateOrderRequest { request_id, customer_id, items: vec![item] }.encode_to_vec()
        }
        "GetOrder" => orders::GetOrderRequest { order_id }.encode_to_vec(),
        "ListOrders" => orders::ListOrdersRequest { customer_id, ..Default::default() }.encode_to_vec(),
        "UpdateOrderStatus" => {
            let status = OrderStatus::Confirmed.into();
            orders::UpdateOrderStatusRequest { order_id, status, ..Default::default() }.encode_to_vec()
        }
        "WatchOrders" => orders::WatchOrdersRequest { order_id, ..Default::default() }.encode_to_vec(),
        "CheckInventory" => orders::CheckInventoryRequest { items: vec![item] }.encode_to_vec(),
        "GetStock" => inventory::GetStockRequest { product_id: item.product_id }.encode_to_vec(),
        "ListStock" => inventory::ListStockRequest::default().encode_to_vec(),
        "AdjustStock" => {
            let adjustments = vec![inventory::Adjustment { product_id: item.product_id, delta: 1 }];
            inventory::AdjustStockRequest { request_id, adjustments, reason: none() }.encode_to_vec()
        }
        other => panic!("{other} is new: say here what a good request of it is"),
    };
    message.into()
}
