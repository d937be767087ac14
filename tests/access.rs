//! Authorization: every rpc of the descriptor set with every kind of token.

use bytes::Bytes;
use catalog::Rule;
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use server::config::access::{Access, Reflection};
use tonic::Code::{self, NotFound, Ok as Fine, PermissionDenied, Unauthenticated};
use tonic::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::auth::{AuthGateway, request};
use crate::harness::client::settled;
use crate::harness::codec::ask;
use crate::harness::issuer::{ALL, Issuer, Sign, Token, now};
use crate::harness::system::{PATIENCE, System, new_order, reason, until};

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// The paths of all served rpcs, from the descriptor set.
fn served() -> Vec<String> {
    let pool = DescriptorPool::decode(contract::DESCRIPTORS).unwrap();
    let internal = |path: &str| contract::route::ALL.iter().any(|route| route.path == path && route.internal);
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods
        .map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name()))
        .filter(|path| !internal(path))
        .collect()
}

/// The expected result of every rpc for a token.
enum Verdict {
    All(Code),
    /// Failures by rpc; all others succeed.
    Some(&'static [(&'static str, Code)]),
    /// Only rpcs whose rule asks for this scope succeed.
    Scope(&'static str),
}

impl Verdict {
    fn of(&self, rule: &Rule) -> Code {
        match self {
            Verdict::All(code) => *code,
            Verdict::Some(rows) => {
                rows.iter().find(|(rpc, _)| rule.path.ends_with(rpc)).map_or(Fine, |(_, code)| *code)
            }
            Verdict::Scope(scope) if rule.scope().is_some_and(|required| **required == **scope) => Fine,
            Verdict::Scope(_) => PermissionDenied,
        }
    }
}

/// Tokens, by what is wrong with them.
fn tokens(issuer: &Issuer) -> Vec<(&'static str, String, Verdict)> {
    let nobody = || Verdict::All(Unauthenticated);
    let fine = || Verdict::All(Fine);
    let with = |claims: Value| issuer.with(claims);
    let signed = |sign, kid: &'static str| issuer.token(|token| token.sign(sign, kid));
    let header = |change: &dyn Fn(&mut Token)| issuer.token(|token| change(token));
    let (other_issuer, good) = (Issuer::new(), issuer.token(|_| {}));
    let others: &[(&str, Code)] = &[
        ("CreateOrder", PermissionDenied),
        ("ListOrders", PermissionDenied),
        ("GetOrder", NotFound),
        ("UpdateOrderStatus", NotFound),
        ("WatchOrders", NotFound),
    ];
    let mut cut = good.clone();
    cut.pop();
    vec![
        ("valid, ES256", good.clone(), fine()),
        ("valid, EdDSA", signed(Sign::EdDsa, "ed"), fine()),
        ("valid, HS256", signed(Sign::Hs256, "any"), fine()),
        ("without a key id", header(&|token| token.header = json!({})), fine()),
        ("ended within the skew", with(json!({"exp": now() - 30})), fine()),
        ("begins within the skew", with(json!({"nbf": now() + 30})), fine()),
        ("own customer", with(json!({"customer_id": "ann"})), fine()),
        ("other customer", with(json!({"customer_id": "bob"})), Verdict::Some(others)),
        ("one scope", with(json!({"scope": "orders.read"})), Verdict::Scope("orders.read")),
        ("another scope", with(json!({"scope": ["inventory.adjust"]})), Verdict::Scope("inventory.adjust")),
        ("no scope", with(json!({"scope": ""})), Verdict::All(PermissionDenied)),
        (
            "strange scopes",
            with(json!({"scope": "orders orders.* * openid"})),
            Verdict::All(PermissionDenied),
        ),
        ("expired", with(json!({"exp": now() - 120})), nobody()),
        ("never expires", with(json!({"exp": null})), nobody()),
        ("not yet valid", with(json!({"nbf": now() + 120})), nobody()),
        ("wrong audience", with(json!({"aud": "somebody"})), nobody()),
        ("no audience", with(json!({"aud": null})), nobody()),
        ("wrong issuer", with(json!({"iss": "https://id.example.org/"})), nobody()),
        ("no subject", with(json!({"sub": null})), nobody()),
        ("customer of a wrong type", with(json!({"customer_id": 7})), nobody()),
        ("alg none", signed(Sign::None("none"), "ec"), nobody()),
        ("alg None", signed(Sign::None("None"), "ec"), nobody()),
        ("alg HS384", signed(Sign::None("HS384"), "ec"), nobody()),
        ("a public key as a secret", signed(Sign::Confused, "ec"), nobody()),
        ("a key of another algorithm", signed(Sign::EdDsa, "ec"), nobody()),
        ("unknown key", signed(Sign::Es256, "other"), nobody()),
        ("another issuer's key", other_issuer.token(|_| {}), nobody()),
        ("a critical header", header(&|token| token.header["crit"] = json!(["b64"])), nobody()),
        ("cut", cut, nobody()),
        ("nonsense", "x.y.z".to_owned(), nobody()),
    ]
}

#[tokio::test]
async fn every_rpc_answers_every_kind_of_token_as_it_should() {
    let system = System::builder().stock("lamp", 1_000).start().await;
    let order = system.place(&new_order("lamp", 1).by("ann")).await.unwrap().order_id;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    let mut wrong = Vec::new();
    for rule in orders::served::contract().rules() {
        let message = || request(&rule.path, "ann", &order);
        let bare = ask(&guarded.channel, &rule.path, message(), &[]).await;
        assert_eq!(bare.unwrap_err().code(), Unauthenticated, "{} without a token", rule.path);
        for (kind, token, verdict) in tokens(&issuer) {
            // Twice: the second time the token may be cached.
            for _ in 0..2 {
                let code = guarded.code(&rule.path, message(), &token).await;
                if code != verdict.of(rule) {
                    wrong.push(format!("{} {kind}: {code:?}", rule.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_rpc_that_is_served_has_a_rule_and_no_other_has() {
    let mut served = served();
    served.sort_unstable();
    let catalog = orders::served::contract();
    let ruled: Vec<&str> = catalog.rules().iter().map(|rule| rule.path.as_str()).collect();
    assert_eq!(served, ruled);
    let mut scopes: Vec<&str> = ALL.split(' ').collect();
    scopes.sort_unstable();
    assert_eq!(scopes, catalog.scopes().iter().map(|scope| &**scope).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_has_no_rule_is_open_to_nobody_and_health_to_everybody() {
    let system = System::builder().start().await;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    let good = issuer.token(|_| {});
    for path in [
        "/inventory.v1.ReservationService/ReserveInventory",
        "/orders.v1.OrderService/Nothing",
        "/orders.v1.OrderService/createorder",
        "/grpc.health.v1.Healthy/Check",
        "/nothing/at/all",
        "/",
    ] {
        assert_eq!(guarded.code(path, Bytes::new(), &good).await, PermissionDenied, "{path}");
        assert_eq!(guarded.code(path, Bytes::new(), "").await, Unauthenticated, "{path}");
    }
    let mut health = HealthClient::new(guarded.channel.clone());
    health.check(HealthCheckRequest::default()).await.unwrap();
    // Probes get the same answer with an invalid token.
    let mut request = Request::new(HealthCheckRequest { service: "orders.v1.OrderService".to_owned() });
    request.metadata_mut().insert("authorization", "Bearer x".parse().unwrap());
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
}

#[tokio::test]
async fn reflection_is_for_known_callers_for_everybody_or_for_nobody() {
    let system = System::builder().start().await;
    let issuer = Issuer::new();
    // ServerReflectionRequest { list_services: "" }.
    let list = Bytes::from_static(&[0x3a, 0]);
    let none = issuer.with(json!({"scope": ""}));
    for (reflection, bare, known) in [
        (Reflection::Callers, Unauthenticated, Fine),
        (Reflection::Open, Fine, Fine),
        (Reflection::Off, Unauthenticated, PermissionDenied),
    ] {
        let guarded = AuthGateway::start(&system, Access { reflection, ..issuer.access() }).await;
        for path in [REFLECTION, &REFLECTION.replace(".v1.", ".v1alpha.")] {
            assert_eq!(guarded.code(path, list.clone(), "").await, bare, "{reflection:?}");
            assert_eq!(guarded.code(path, list.clone(), &none).await, known, "{reflection:?}");
        }
    }
    let off = AuthGateway::start(&system, Access { reflection: Reflection::Off, ..Access::default() }).await;
    assert_eq!(off.code(REFLECTION, list, "").await, Code::Unimplemented);
}

#[tokio::test]
async fn workers_are_told_who_calls_and_no_client_can_say_it() {
    let system = System::builder().stock("lamp", 9).start().await;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    let nats = system.nats().await;
    let mut requests = nats.subscribe("check_inventory").await.unwrap();
    settled(&nats).await;
    let path = "/orders.v1.OrderService/CheckInventory";
    let message = || request(path, "ann", "");
    let bearer = format!("Bearer {}", issuer.with(json!({"sub": "Zo\u{eb} & co"})));
    let mut principal = async || {
        let next = futures_util::StreamExt::next(&mut requests);
        let seen = tokio::time::timeout(PATIENCE, next).await.expect("a request in time").unwrap();
        let headers = seen.headers.unwrap();
        headers.get_all("Principal").map(ToString::to_string).collect::<Vec<_>>()
    };
    let forged = [("principal", "jwt:root"), ("nats-principal", "jwt:root")];
    let metadata = [("authorization", bearer.as_str()), forged[0], forged[1]];
    ask(&guarded.channel, path, message(), &metadata).await.unwrap();
    assert_eq!(principal().await, ["jwt:Zo%C3%AB%20&%20co"]);
    ask(&system.channel(), path, message(), &forged).await.unwrap();
    assert!(principal().await.is_empty());
}

#[tokio::test]
async fn keys_that_are_replaced_are_good_no_longer_and_new_ones_at_once() {
    let system = System::builder().stock("lamp", 9).start().await;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    let path = "/orders.v1.OrderService/CheckInventory";
    let (old, other) = (issuer.token(|_| {}), issuer.token(|token| token.sign(Sign::EdDsa, "ed")));
    let code = async |token: &str| guarded.code(path, request(path, "ann", ""), token).await;
    assert_eq!((code(&old).await, code(&other).await), (Fine, Fine));
    let mut jwks = issuer.jwks();
    jwks["keys"].as_array_mut().unwrap().remove(0);
    issuer.publish(&jwks);
    until("the old key is gone", async || code(&old).await == Unauthenticated).await;
    assert_eq!(code(&other).await, Fine);
    // An invalid file changes nothing.
    issuer.publish(&json!({"keys": []}));
    // Time for several looks at the file.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(code(&other).await, Fine);
    issuer.publish(&issuer.jwks());
    until("the key is back", async || code(&old).await == Fine).await;
}

#[tokio::test]
async fn a_watch_ends_with_its_token() {
    let system = System::builder().start().await;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    // It stays valid for the permitted clock skew of 60 s, less these.
    let token = issuer.with(json!({"exp": now() - 57}));
    let path = "/orders.v1.OrderService/WatchOrders";
    let bearer = format!("Bearer {token}");
    let metadata = [("authorization", bearer.as_str())];
    let mut watch =
        crate::harness::codec::call(&guarded.channel, path, Bytes::new(), &metadata).await.unwrap();
    assert!(watch.message().await.unwrap().is_some());
    let end = tokio::time::timeout(PATIENCE, watch.message()).await.expect("an end in time");
    let end = end.unwrap_err();
    assert_eq!((end.code(), reason(&end).as_str()), (Unauthenticated, "UNAUTHENTICATED"));
    guarded.gateway.drain().await;
}
