//! API keys, quotas of a caller, and JWKS fetched from a server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use server::auth::apikey;
use server::config::access::Access;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::{Code, Status};

use crate::harness::auth::{AuthGateway, request};
use crate::harness::codec::{ask, call};
use crate::harness::issuer::{Issuer, Sign};
use crate::harness::status::{assert_failure, assert_retryable};
use crate::harness::system::{PATIENCE, System, new_order, until};

const CHECK: &str = "/orders.v1.OrderService/CheckInventory";
const GET: &str = "/orders.v1.OrderService/GetOrder";
const WATCH: &str = "/orders.v1.OrderService/WatchOrders";

fn made(name: &str, scopes: &[&str], customer: Option<&str>) -> (String, String) {
    let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let new = apikey::new(&orders::served::contract(), name, &scopes, customer).unwrap();
    (new.key.to_string(), new.line)
}

#[tokio::test]
async fn a_key_is_good_for_its_scopes_and_customer_until_it_is_taken_off_the_list() {
    let system = System::builder().stock("lamp", 9).start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let (shop_key, shop_line) = made("till", &["inventory.check"], None);
    let (ann_key, ann_line) = made("ann", &["orders.read"], Some("ann"));
    std::fs::write(&file, format!("# who may call\n{shop_line}\n{ann_line}\n")).unwrap();
    let guarded =
        AuthGateway::start(&system, Access { api_keys: Some(file.clone()), ..Access::default() }).await;
    let code = async |path: &str, order: &str, key: &str| {
        let metadata = [("x-api-key", key)];
        let answer = ask(&guarded.channel, path, request(path, "ann", order), &metadata).await;
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    let [hers, his] = ["ann", "bob"].map(|customer| new_order("lamp", 1).by(customer));
    let (hers, his) = (system.place(&hers).await.unwrap(), system.place(&his).await.unwrap());
    assert_eq!(code(CHECK, "", &shop_key).await, Code::Ok);
    assert_eq!(code(GET, &hers.order_id, &shop_key).await, Code::PermissionDenied);
    assert_eq!(code(GET, &hers.order_id, &ann_key).await, Code::Ok);
    assert_eq!(code(GET, &his.order_id, &ann_key).await, Code::NotFound);
    for bad in [
        "x",
        "",
        &shop_key[1..],
        &shop_key.replace("till", "ann"),
        &made("till", &["inventory.check"], None).0,
    ] {
        assert_eq!(code(CHECK, "", bad).await, Code::Unauthenticated, "{bad}");
    }
    let bearer =
        ask(&guarded.channel, CHECK, request(CHECK, "", ""), &[("authorization", "Bearer x.y.z")]).await;
    assert_failure(bearer, Code::Unauthenticated, "UNAUTHENTICATED", "no");
    std::fs::write(&file, format!("{ann_line}\n")).unwrap();
    until("the key is gone", async || code(CHECK, "", &shop_key).await == Code::Unauthenticated).await;
    assert_eq!(code(GET, &hers.order_id, &ann_key).await, Code::Ok);
    // A watch ends when its key is changed to another customer.
    let mut watch = call(&guarded.channel, WATCH, Bytes::new(), &[("x-api-key", &ann_key)]).await.unwrap();
    assert!(watch.message().await.unwrap().is_some());
    std::fs::write(&file, format!("{}\n", ann_line.replace(" ann", " bob"))).unwrap();
    let end = tokio::time::timeout(PATIENCE, watch.message()).await.expect("an end in time");
    assert_failure(end, Code::PermissionDenied, "PERMISSION_DENIED", "no");
}

#[tokio::test]
async fn one_caller_is_held_to_a_share_and_others_do_not_notice() {
    let system = System::builder().stock("lamp", 9).start().await;
    let issuer = Issuer::new();
    let access = Access { caller_in_flight: 3, caller_rate: 5, ..issuer.access() };
    let guarded = AuthGateway::start(&system, access).await;
    let [ann, bob] = ["ann", "bob"].map(|name| format!("Bearer {}", issuer.with(json!({"sub": name}))));
    // A watch counts as in flight as long as it is open.
    let mut watches = Vec::new();
    for _ in 0..3 {
        let watch = call(&guarded.channel, WATCH, Bytes::new(), &[("authorization", &ann)]).await;
        watches.push(watch.unwrap());
    }
    let check = async |bearer: &str| {
        let metadata = [("authorization", bearer)];
        ask(&guarded.channel, CHECK, request(CHECK, "", ""), &metadata).await
    };
    let refused = assert_failure(check(&ann).await, Code::ResourceExhausted, "QUOTA_EXCEEDED", "no");
    assert_retryable(&refused);
    assert!(refused.quota_failure().is_some_and(|quota| quota.violations[0].description.contains('3')));
    check(&bob).await.unwrap();
    watches.pop();
    until("there is room again", async || check(&ann).await.is_ok()).await;
    // A burst of ten seconds' worth, and then the rate limit; another token of the same caller does not help.
    let again = format!("Bearer {}", issuer.with(json!({"sub": "ann", "jti": "2"})));
    let mut refused = None;
    for number in 0..60 {
        let bearer = if number % 2 == 0 { &ann } else { &again };
        refused = refused.or(check(bearer).await.err());
    }
    let refused =
        assert_failure(Err::<(), Status>(refused.unwrap()), Code::ResourceExhausted, "QUOTA_EXCEEDED", "no");
    assert_retryable(&refused);
    check(&bob).await.unwrap();
    until("time has brought more", async || check(&ann).await.is_ok()).await;
}

/// A JWKS server.
struct Publisher {
    url: String,
    /// Its response; `None`: an error.
    jwks: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Publisher {
    async fn open(jwks: Option<Value>) -> Publisher {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let publisher = Publisher { url, jwks: Arc::new(Mutex::new(jwks)), asked: Arc::default() };
        let (jwks, asked) = (publisher.jwks.clone(), publisher.asked.clone());
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = listener.accept().await {
                let mut request = [0; 1_024];
                let _ = peer.read(&mut request).await;
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = match &*jwks.lock().unwrap() {
                    Some(jwks) => format!("HTTP/1.0 200 OK\r\n\r\n{jwks}"),
                    None => "HTTP/1.0 503 Later\r\n\r\n".to_owned(),
                };
                let _ = peer.write_all(answer.as_bytes()).await;
            }
        });
        publisher
    }

    fn publish(&self, jwks: Option<Value>) {
        *self.jwks.lock().unwrap() = jwks;
    }

    fn access(&self, issuer: &Issuer) -> Access {
        let place = self.url.parse().unwrap();
        Access {
            jwt_jwks: Some(place),
            jwt_secret_file: None,
            jwt_jwks_refresh: Duration::from_secs(10),
            ..issuer.access()
        }
    }
}

/// The issuer's keys except the first.
fn fewer(issuer: &Issuer) -> Value {
    let mut jwks = issuer.jwks();
    jwks["keys"].as_array_mut().unwrap().remove(0);
    jwks
}

async fn check(guarded: &AuthGateway, token: &str) -> Result<(), Status> {
    guarded.call(CHECK, request(CHECK, "", ""), token).await.map(drop)
}

#[tokio::test]
async fn a_key_that_comes_into_use_is_fetched_once_and_a_server_that_fails_takes_none_away() {
    let system = System::builder().stock("lamp", 9).start().await;
    let issuer = Issuer::new();
    let publisher = Publisher::open(Some(fewer(&issuer))).await;
    let guarded = AuthGateway::start(&system, publisher.access(&issuer)).await;
    let (old, new) = (issuer.token(|token| token.sign(Sign::EdDsa, "ed")), issuer.token(|_| {}));
    check(&guarded, &old).await.unwrap();
    let before = publisher.asked.load(Ordering::SeqCst);
    // Unknown key ids must not cause repeated fetches.
    for _ in 0..50 {
        assert_failure(check(&guarded, &new).await, Code::Unauthenticated, "UNAUTHENTICATED", "no");
    }
    assert!(publisher.asked.load(Ordering::SeqCst) <= before + 1);
    publisher.publish(Some(issuer.jwks()));
    until("the new key is known", async || check(&guarded, &new).await.is_ok()).await;
    publisher.publish(None);
    let before = publisher.asked.load(Ordering::SeqCst);
    until("it was asked in vain", async || publisher.asked.load(Ordering::SeqCst) > before).await;
    check(&guarded, &new).await.unwrap();
    check(&guarded, &old).await.unwrap();
    assert_failure(check(&guarded, "x.y.z").await, Code::Unauthenticated, "UNAUTHENTICATED", "no");
}

#[tokio::test]
async fn a_gateway_that_could_fetch_no_keys_yet_asks_its_callers_to_come_back() {
    let system = System::builder().stock("lamp", 9).start().await;
    let issuer = Issuer::new();
    let publisher = Publisher::open(None).await;
    let guarded = AuthGateway::start(&system, publisher.access(&issuer)).await;
    let token = issuer.token(|_| {});
    assert_retryable(&assert_failure(
        check(&guarded, &token).await,
        Code::Unavailable,
        "KEYS_UNAVAILABLE",
        "no",
    ));
    publisher.publish(Some(issuer.jwks()));
    until("keys are there", async || check(&guarded, &token).await.is_ok()).await;
}
