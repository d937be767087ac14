//! What a client sees of the contract.

use std::sync::Arc;

use foreign_contract::Gateway;
use futures_util::stream;
use serde_json::{Value, json};
use server::config::access::{Access, Reflection};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::client::Client;
use crate::service::Services;

#[tokio::test]
async fn a_plain_service_is_called_by_its_descriptors_alone() {
    let services = Services::start().await;
    let gateway = Gateway::start(&services.server.url(), &Access::default()).await.unwrap();
    let client = Client::of(&gateway).await;
    let book = client.call("Shelves/Get", json!({"id": "emma"}), &[]).await.unwrap();
    let copy = json!({"number": "9007199254740993", "lentUntil": "2026-11-29T10:00:00Z"});
    assert_eq!(book, json!({"title": "Emma", "copies": [copy]}));
    let removed = client.call("Shelves/Remove", json!({"id": "emma"}), &[]).await.unwrap();
    assert_eq!(removed, json!({}));
    gateway.drain().await.unwrap();
}

#[tokio::test]
async fn methods_of_one_name_reach_two_services_each_in_its_encoding() {
    let services = Services::start().await;
    let gateway = Gateway::start(&services.server.url(), &Access::default()).await.unwrap();
    let client = Client::of(&gateway).await;
    let until = client.call("Desk/Get", json!({"id": "x"}), &[]).await.unwrap();
    assert_eq!(until, json!("2001-09-09T01:46:40Z"));
    let refused = client.call("Shelves/Get", json!({"id": "x"}), &[]).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "no such book"));
}

#[tokio::test]
async fn its_services_are_described_and_probed_and_no_other_is_there() {
    let services = Services::start().await;
    let access = Access { reflection: Reflection::Open, ..Access::default() };
    let gateway = Gateway::start(&services.server.url(), &access).await.unwrap();
    let client = Client::of(&gateway).await;
    let ask = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let asked =
        ServerReflectionClient::new(client.0.clone()).server_reflection_info(stream::iter([ask])).await;
    let answer = asked.unwrap().into_inner().message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    names.retain(|name| !name.starts_with("grpc."));
    assert_eq!(names, ["example.library.Desk", "example.library.Shelves"]);
    gateway.health.set("example.library.Desk", true);
    for (service, status) in [("Desk", ServingStatus::Serving), ("Shelves", ServingStatus::NotServing)] {
        let request = HealthCheckRequest { service: format!("example.library.{service}") };
        let answer = HealthClient::new(client.0.clone()).check(request).await.unwrap();
        assert_eq!(answer.into_inner().status(), status, "{service}");
    }
    let path = "/orders.v1.OrderService/GetOrder";
    let unknown = crate::codec::ask(&client.0, path, Vec::new().into(), &[]).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[test]
fn a_streaming_rpc_with_a_route_is_refused_with_what_to_change() {
    let file = protox::file::File::from_source("stream.proto", STREAM).unwrap();
    let catalog = foreign_contract::catalog().unwrap();
    let mut pool = catalog.descriptors()[0].clone();
    pool.add_file_descriptor_proto(file.file_descriptor_proto().clone()).unwrap();
    let refused: Arc<str> = catalog::Catalog::new(&pool.encode_to_vec()).unwrap_err().to_string().into();
    assert!(refused.contains("stream.proto") && refused.contains("remove `stream`"), "{refused}");
}

const STREAM: &str = r#"
    syntax = "proto3";
    package example.library;
    import "example/library/shelves.proto";
    import "natsgateway/v1/route.proto";
    service News {
        rpc Follow(Id) returns (stream Book) { option (natsgateway.v1.route) = {subject: "library.news"}; }
    }
"#;

#[tokio::test]
async fn without_its_service_a_call_ends_as_unavailable() {
    let services = Services::start().await;
    let gateway = Gateway::start(&services.server.url(), &Access::default()).await.unwrap();
    let client = Client::of(&gateway).await;
    drop(services);
    let status = client.call("Shelves/Remove", Value::from_iter([("id", "emma")]), &[]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}
