//! Clients that know only the address, probes, and NestJS services of the original system behind the gateway.

use contract::orders::v1::CheckInventoryRequest;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::harness::client::settled;
use crate::harness::system::{PATIENCE, System, assert_refused, until};

fn health(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_follows_the_workers_and_knows_no_other_service() {
    let mut system = System::builder().start().await;
    let mut client = HealthClient::new(system.channel());
    for service in ["", "liveness", "orders.v1.OrderService", "inventory.v1.InventoryService"] {
        let status = client.check(health(service)).await.unwrap().into_inner().status;
        assert_eq!(status, ServingStatus::Serving as i32, "{service}");
    }
    assert_eq!(client.check(health("nobody")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = client.watch(health("inventory.v1.InventoryService")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);
    system.workers.remove(0).kill();
    let change = tokio::time::timeout(PATIENCE, watch.message()).await.expect("a change in time");
    assert_eq!(change.unwrap().unwrap().status, ServingStatus::NotServing as i32);
    let alive = client.check(health("liveness")).await.unwrap().into_inner().status;
    assert_eq!(alive, ServingStatus::Serving as i32, "it has nothing to do with workers");
    let mut unknown = client.watch(health("nobody")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status, 3, "SERVICE_UNKNOWN");
}

async fn reflect(channel: Channel, question: MessageRequest) -> MessageResponse {
    let question = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let questions = futures_util::stream::iter([question]);
    let answers = ServerReflectionClient::new(channel).server_reflection_info(questions).await.unwrap();
    let answers: Vec<ServerReflectionResponse> = answers.into_inner().map(Result::unwrap).collect().await;
    answers.into_iter().next().and_then(|answer| answer.message_response).expect("an answer")
}

/// The names of the services, by reflection.
pub async fn services(channel: Channel) -> Vec<String> {
    let list = match reflect(channel, MessageRequest::ListServices(String::new())).await {
        MessageResponse::ListServicesResponse(list) => list,
        other => panic!("{other:?}"),
    };
    list.service.into_iter().map(|service| service.name).collect()
}

#[tokio::test]
async fn a_client_learns_the_services_by_reflection() {
    let system = System::builder().start().await;
    let names = services(system.channel()).await;
    let has = |name: &str| names.iter().any(|known| known == name);
    assert!(has("orders.v1.OrderService") && has("inventory.v1.InventoryService"));
    assert!(!has("inventory.v1.ReservationService"), "it is not served over gRPC");
    let symbol = MessageRequest::FileContainingSymbol("inventory.v1.InventoryService".to_owned());
    let file = reflect(system.channel(), symbol).await;
    assert!(matches!(file, MessageResponse::FileDescriptorResponse(_)));
}

#[tokio::test]
async fn reservations_are_not_served_over_grpc() {
    use contract::inventory::v1::ReserveInventoryRequest;
    use contract::inventory::v1::reservation_service_client::ReservationServiceClient;
    let system = System::builder().start().await;
    let mut client = ReservationServiceClient::new(system.channel());
    let status = client.reserve_inventory(ReserveInventoryRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn without_workers_calls_are_unavailable_and_nothing_was_delivered() {
    let mut system = System::builder().stock("lamp", 1).start().await;
    system.workers.remove(0).drain().await;
    let status = system.check("lamp").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["delivered"].as_str()), ("NO_RESPONDERS", "no"));
    assert!(tonic_types::StatusExt::get_details_retry_info(&status).is_some());
    system.add_worker().await;
    until("the new worker is found", async || system.check("lamp").await.is_ok()).await;
}

/// A service of the original system: replies in the NestJS envelope, and refuses what is out of stock with an
/// RpcException.
async fn nest_service(nats: async_nats::Client) {
    let mut requests = nats.queue_subscribe("check_inventory", "inventory-check".to_owned()).await.unwrap();
    settled(&nats).await;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let envelope: Value = serde_json::from_slice(&request.payload).unwrap();
            assert_eq!(envelope["pattern"], "check_inventory");
            let item = &envelope["data"][0];
            let reply = if item["productId"] == "lamp" {
                let items = json!([{"productId": "lamp", "requested": 1, "available": 4}]);
                json!({"id": envelope["id"], "response": {"available": true, "items": items}, "isDisposed": true})
            } else {
                let err = json!({"status": "error", "message": "no such shelf"});
                json!({"id": envelope["id"], "err": err, "isDisposed": true})
            };
            nats.publish(request.reply.unwrap(), reply.to_string().into()).await.unwrap();
        }
    });
}

#[tokio::test]
async fn a_nestjs_service_is_called_in_its_envelope() {
    let system = System::builder().workers(0).nest("check_inventory").start().await;
    nest_service(system.nats().await).await;
    assert!(system.check("lamp").await.unwrap());
    let status = system.check("rug").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "no such shelf"));
    let empty = system.orders().check_inventory(CheckInventoryRequest::default()).await;
    assert_refused(empty, "NEST_EXCEPTION");
}
