//! Who may call: scopes come from the contract's access rules.

use std::fs;

use foreign_contract::Gateway;
use serde_json::json;
use server::auth::apikey;
use server::config::access::Access;
use tonic::Code;

use crate::client::Client;
use crate::service::Services;

#[tokio::test]
async fn a_caller_needs_the_scope_that_the_contract_names() {
    let services = Services::start().await;
    let catalog = foreign_contract::catalog().unwrap();
    let made = apikey::new(&catalog, "reader", &["library.read".to_owned()], None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, &made.line).unwrap();
    let access = Access { api_keys: Some(file), ..Access::default() };
    let gateway = Gateway::start(&services.server.url(), &access).await.unwrap();
    let client = Client::of(&gateway).await;
    let key = [("x-api-key", &**made.key)];
    let id = || json!({"id": "emma"});
    assert_eq!(client.call("Shelves/Get", id(), &key).await.unwrap()["title"], "Emma");
    let refused = client.call("Shelves/Remove", id(), &key).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("library.write"), "{refused}");
    let nobody = client.call("Shelves/Get", id(), &[]).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
}

#[test]
fn a_scope_that_no_rule_requires_is_refused_with_those_that_are() {
    let catalog = foreign_contract::catalog().unwrap();
    let refused = apikey::new(&catalog, "reader", &["orders.read".to_owned()], None).err().unwrap();
    let text = refused.to_string();
    assert!(text.contains("orders.read") && text.contains("library.read, library.write"), "{text}");
}
