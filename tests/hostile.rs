//! Hostile input in every text field of every rpc, in metadata, and in tokens. It is refused or stored unchanged, and a
//! subscriber to everything sees that nothing is published on other subjects.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use contract::inventory::v1 as inventory;
use contract::orders::v1 as orders;
use contract::orders::v1::{ListOrdersRequest, OrderStatus};
use futures_util::StreamExt as _;
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, Value};
use serde_json::json;
use tonic::{Code, Status};

use crate::harness::auth::{AuthGateway, request};
use crate::harness::client::settled;
use crate::harness::codec::ask;
use crate::harness::issuer::Issuer;
use crate::harness::system::{PATIENCE, System, new_order, until};

/// Texts with a special meaning to something behind the gateway.
fn texts() -> Vec<String> {
    let texts = [
        ".",
        "*",
        ">",
        "a.*.b",
        "orders.>",
        "$JS.API.STREAM.DELETE.ORDERS",
        "$SYS.REQ.SERVER.PING",
        "_INBOX.x.y",
        " ",
        "\t",
        "a\r\nNats-Rollup: all",
        "a\nb",
        "\0",
        "a\0b",
        "\u{1b}[31m",
        "\u{202e}drac",
        "\u{2066}x\u{2069}",
        "\u{200b}",
        "\u{feff}",
        "\u{85}",
        "../../etc/passwd",
        "%2e%2e",
        "'; drop table orders",
        "{\"a\":1}",
        "\u{1f4a3}",
        "-1",
        "null",
    ];
    let long = ["x", "\u{e9}", "*.", "\u{1f4a3}"].map(|text| text.repeat(10_000 / text.len()));
    texts.map(str::to_owned).into_iter().chain(long).collect()
}

/// The text fields of a message, including those of its items.
fn fields(message: &MessageDescriptor) -> Vec<Vec<String>> {
    let own = message.fields().flat_map(|field| match field.kind() {
        Kind::String => vec![vec![field.name().to_owned()]],
        Kind::Message(inner) => {
            let inner = fields(&inner).into_iter();
            inner.map(|path| [vec![field.name().to_owned()], path].concat()).collect()
        }
        _ => Vec::new(),
    });
    own.collect()
}

/// Sets a field to a text; in a list, of its first entry.
fn put(message: &mut DynamicMessage, path: &[String], text: &str) {
    let (name, rest) = path.split_first().unwrap();
    let field = message.get_field_by_name_mut(name).unwrap();
    match (field, rest) {
        (Value::String(value), []) => text.clone_into(value),
        (Value::Message(inner), rest) => put(inner, rest, text),
        (Value::List(list), rest) => put(list[0].as_message_mut().unwrap(), rest, text),
        (other, _) => panic!("{path:?}: {other:?}"),
    }
}

/// The subjects of everything that is published.
struct Recorder {
    seen: Arc<Mutex<BTreeSet<String>>>,
    client: async_nats::Client,
}

impl Recorder {
    async fn on(system: &System) -> Recorder {
        let client = system.nats().await;
        let mut all = client.subscribe(">").await.unwrap();
        settled(&client).await;
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let (recorder, heard) = (Recorder { seen: seen.clone(), client }, seen);
        tokio::spawn(async move {
            while let Some(message) = all.next().await {
                heard.lock().unwrap().insert(message.subject.to_string());
            }
        });
        recorder
    }

    /// The subjects so far that gateway and workers should not publish on.
    async fn unexpected(&self) -> Vec<String> {
        let last = format!("last.{}", uuid::Uuid::new_v4());
        self.client.publish(last.clone(), Bytes::new()).await.unwrap();
        until("all was seen", async || self.seen.lock().unwrap().contains(&last)).await;
        let seen = self.seen.lock().unwrap();
        assert!(seen.contains("reserve_inventory") && seen.contains("adjust_stock"), "it sees something");
        seen.iter().filter(|subject| **subject != last && !ours(subject)).cloned().collect()
    }
}

/// Whether gateway or workers, or the server on their behalf, publish on this subject.
fn ours(subject: &str) -> bool {
    let plain = |token: &str| {
        (1..=64).contains(&token.len())
            && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    let is_id = |token: &str| uuid::Uuid::try_parse(token).is_ok();
    let tokens: Vec<&str> = subject.split('.').collect();
    let routed = contract::route::ALL.iter().any(|route| route.subject == subject);
    routed
        || match tokens.as_slice() {
            ["order_created" | "order_status_updated"]
            | ["inventory", "ledger"]
            | ["$JS", "API", "INFO"]
            // Sent periodically, to find streams that capture a subject.
            | ["$JS", "API", "STREAM", "NAMES"]
            // The server publishes an advisory for each of these requests.
            | ["$JS", "EVENT", "ADVISORY", "API"] => true,
            ["orders", "event", "order_created" | "order_status_updated", id]
            | ["orders", "fence", "expired", id] => is_id(id),
            ["$JS", "API", "STREAM", "MSG", "GET", rest @ ..]
            | ["$JS", "API", "STREAM", "INFO", rest @ ..]
            | ["$JS", "API", "CONSUMER", "CREATE" | "INFO" | "MSG", rest @ ..]
            | ["$JS", "ACK", rest @ ..]
            | ["$JS", "FC", rest @ ..]
            | ["$JS", "API", "DIRECT", "GET", rest @ ..]
            | ["$O", "INVENTORY-SNAPSHOTS", rest @ ..]
            | ["$SRV", "PING" | "INFO" | "STATS", rest @ ..]
            | ["_INBOX", rest @ ..] => rest.iter().all(|token| plain(token)),
            _ => false,
        }
}

#[test]
fn an_unexpected_subject_is_recognized() {
    let id = uuid::Uuid::nil();
    for one in [
        "check_inventory",
        "_INBOX.a.1",
        "$JS.API.STREAM.MSG.GET.ORDERS",
        &format!("orders.event.order_created.{id}"),
    ] {
        assert!(ours(one), "{one}");
    }
    for strange in [
        "x",
        "_INBOX.*",
        "_INBOX.a b",
        "$JS.API.STREAM.DELETE.ORDERS",
        "$JS.API.STREAM.PURGE.ORDERS",
        "orders.event.order_created.*",
        "orders.event.order_created.x",
        "check_inventory.x",
        "$JS.API.CONSUMER.CREATE.ORDERS.>",
        "$SYS.REQ.SERVER.PING",
    ] {
        assert!(!ours(strange), "{strange}");
    }
}

/// Permitted codes of a field besides INVALID_ARGUMENT, if it is free text or opaque.
fn free(rpc: &str, field: &str) -> &'static [Code] {
    match (rpc, field) {
        ("CreateOrder" | "ListOrders" | "WatchOrders", "customer_id") => &[Code::Ok],
        ("UpdateOrderStatus" | "AdjustStock", "reason") => &[Code::Ok],
        ("UpdateOrderStatus", "etag") => &[Code::Aborted],
        // Some texts are valid product ids, and AdjustStock creates these products.
        ("CheckInventory" | "AdjustStock", "product_id") => &[Code::Ok],
        ("CreateOrder", "product_id") => &[Code::Ok, Code::FailedPrecondition],
        ("GetStock", "product_id") => &[Code::Ok, Code::NotFound],
        ("CreateOrder" | "AdjustStock", "request_id") => &[Code::Ok, Code::AlreadyExists],
        _ => &[],
    }
}

#[tokio::test]
async fn every_text_field_is_refused_or_kept_and_nothing_goes_where_it_should_not() {
    let system = System::builder().stock("lamp", 100_000).start().await;
    let recorder = Recorder::on(&system).await;
    let channel = system.channel();
    let pool = DescriptorPool::decode(contract::DESCRIPTORS).unwrap();
    let order = system.order("lamp", 1).await.unwrap().order_id;
    let (mut wrong, mut tried) = (Vec::new(), HashSet::new());
    for rule in ::orders::served::contract().rules() {
        let (service, rpc) = rule.path[1..].split_once('/').unwrap();
        let method = pool.get_service_by_name(service).unwrap().methods().find(|method| method.name() == rpc);
        let input = method.unwrap().input();
        for path in fields(&input) {
            let field = path.last().unwrap();
            tried.insert(field.clone());
            for text in texts() {
                let mut message =
                    DynamicMessage::decode(input.clone(), request(&rule.path, "ann", &order)).unwrap();
                // A request may name one order or one customer, not both.
                if rpc == "WatchOrders" {
                    message.clear_field_by_name("order_id");
                }
                put(&mut message, &path, &text);
                let answer = ask(&channel, &rule.path, message.encode_to_vec().into(), &[]).await;
                let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
                let allowed = free(rpc, field);
                if code != Code::InvalidArgument && !allowed.contains(&code) {
                    wrong.push(format!("{rpc} {path:?} {:?}: {code:?}", &text[..text.len().min(12)]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for field in [
        "request_id",
        "customer_id",
        "order_id",
        "product_id",
        "etag",
        "reason",
        "page_token",
        "resume_token",
    ] {
        assert!(tried.contains(field), "{field}");
    }
    assert_eq!(recorder.unexpected().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_text_that_is_taken_comes_back_as_it_was() {
    let system = System::builder().stock("lamp", 1_000).start().await;
    let recorder = Recorder::on(&system).await;
    system.adjust("lamp", 1).await.unwrap();
    let mut taken = 0;
    for text in texts() {
        let placed = system.place(&new_order("lamp", 1).by(&text)).await;
        let Ok(order) = placed else {
            assert_eq!(placed.unwrap_err().code(), Code::InvalidArgument, "{text:?}");
            continue;
        };
        taken += 1;
        assert_eq!(system.get(&order.order_id).await.unwrap().customer_id, text);
        let list =
            system.list(ListOrdersRequest { customer_id: text.clone(), ..Default::default() }).await.unwrap();
        assert_eq!(
            list.orders.iter().map(|order| &*order.order_id).collect::<Vec<_>>(),
            [&*order.order_id],
            "{text:?}"
        );
        let request = orders::UpdateOrderStatusRequest {
            order_id: order.order_id.clone(),
            status: OrderStatus::Confirmed.into(),
            reason: text.clone(),
            ..Default::default()
        };
        system.orders().update_order_status(request).await.unwrap();
        assert_eq!(system.get(&order.order_id).await.unwrap().status_reason, text);
    }
    assert!(taken >= 10, "{taken}");
    assert_eq!(recorder.unexpected().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_metadata_says_goes_no_further_unless_it_is_well_formed() {
    let system = System::builder().stock("lamp", 1_000).start().await;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    let recorder = Recorder::on(&system).await;
    system.order("lamp", 1).await.unwrap();
    system.adjust("lamp", 1).await.unwrap();
    let nats = system.nats().await;
    let mut requests = nats.subscribe("check_inventory").await.unwrap();
    settled(&nats).await;
    let path = "/orders.v1.OrderService/CheckInventory";
    let known = ["Request-Deadline", "Request-Timeout", "Content-Type", "Principal"];
    for text in texts() {
        let bearer = format!("Bearer {}", issuer.with(json!({"sub": text})));
        let mut metadata = vec![("authorization", bearer.as_str())];
        let names = [
            "x-request-id",
            "traceparent",
            "tracestate",
            "principal",
            "nats-msg-id",
            "nats-rollup",
            "reply-to",
        ];
        // Other bytes are not permitted in headers.
        if text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            metadata.extend(names.map(|name| (name, text.as_str())));
        }
        let answer = ask(&guarded.channel, path, request(path, "ann", ""), &metadata).await;
        if text.len() > 256 {
            // Too long for the limit on headers.
            assert!(answer.is_err(), "{text:?}");
            continue;
        }
        answer.unwrap_or_else(|status| panic!("{text:?}: {status:?}"));
        let seen = tokio::time::timeout(PATIENCE, requests.next()).await.expect("a request in time");
        let headers = seen.unwrap().headers.unwrap();
        let said: Vec<&str> =
            headers.iter().map(|(name, _)| name.as_ref()).filter(|name| !known.contains(name)).collect();
        // By chance, these are valid request ids.
        assert!(
            said.iter().all(|name| *name == "Request-Id" && (text == "-1" || text == "null")),
            "{text:?}: {said:?}"
        );
        let principal = headers.get("Principal").unwrap().as_str();
        assert!(
            principal.starts_with("jwt:") && principal.bytes().all(|b| b.is_ascii_graphic()),
            "{text:?}: {principal}"
        );
    }
    assert_eq!(recorder.unexpected().await, Vec::<String>::new());
}

#[tokio::test]
async fn items_that_are_too_many_or_name_too_much_are_refused_before_anything_is_asked() {
    let system = System::builder().stock("lamp", 9).start().await;
    let nats = system.nats().await;
    let mut all = nats.subscribe("check_inventory").await.unwrap();
    settled(&nats).await;
    for text in texts().into_iter().filter(|text| text.len() < 1_000) {
        let items = vec![inventory::Item { product_id: text.clone(), quantity: 1 }; 501];
        let request = orders::CreateOrderRequest { request_id: text.clone(), customer_id: text, items };
        assert_eq!(system.orders().create_order(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    system.order("lamp", 1).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, all.next()).await.expect("the good one").unwrap();
    assert!(String::from_utf8_lossy(&first.payload).contains("lamp"), "{first:?}");
}
