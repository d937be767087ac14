//! Caller identity: no choice of an id or a name makes one caller another.

use contract::inventory::v1::{AdjustStockRequest, Adjustment};
use prost_reflect::prost::Message;
use serde_json::json;
use tonic::Status;
use tonic::transport::Channel;
use uuid::{Uuid, uuid};

use crate::harness::auth::AuthGateway;
use crate::harness::codec::ask;
use crate::harness::issuer::Issuer;
use crate::harness::system::System;

/// Namespace of the ledger keys of authenticated callers' adjustments.
const NAMESPACE: Uuid = uuid!("8c1f52d3-0b7e-4a96-b3d5-1e706f4297ca");

async fn adjust(channel: &Channel, id: &str, bearer: Option<&str>) -> Result<(), Status> {
    let adjustments = vec![Adjustment { product_id: "lamp".to_owned(), delta: 1 }];
    let request = AdjustStockRequest { request_id: id.to_owned(), adjustments, reason: String::new() };
    let metadata: Vec<(&str, &str)> = bearer.map(|bearer| ("authorization", bearer)).into_iter().collect();
    let path = "/inventory.v1.InventoryService/AdjustStock";
    ask(channel, path, request.encode_to_vec().into(), &metadata).await.map(drop)
}

#[tokio::test]
async fn an_anonymous_caller_cannot_choose_the_id_of_another_callers_adjustment() {
    let system = System::builder().stock("lamp", 100).start().await;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    let bearer = format!("Bearer {}", issuer.with(json!({"sub": "one"})));
    let key = |id: &str| Uuid::new_v5(&NAMESPACE, format!("jwt:one\0{id}").as_bytes()).to_string();
    // Before the other caller's adjustment, and after.
    for (count, id) in [(1, "count-1"), (2, "count-2")] {
        let anonymous = async || adjust(&system.channel(), &key(id), None).await.unwrap();
        if count == 1 {
            anonymous().await;
        }
        adjust(&guarded.channel, id, Some(&bearer)).await.unwrap();
        anonymous().await;
        // A repeat is still recognised as one.
        adjust(&guarded.channel, id, Some(&bearer)).await.unwrap();
        anonymous().await;
        assert_eq!(system.stock("lamp").await, (100 + 2 * count, 0), "{id}");
    }
}
