//! Headers of everything that gateway and workers publish on NATS are visible ASCII, whatever callers and other clients
//! send.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use async_nats::{Message, Subscriber};
use contract::orders::v1::{OrderStatus, UpdateOrderStatusRequest};
use futures_util::StreamExt as _;
use nats::{Connection, Options};
use order_streams::DeadLetters;
use tokio_util::task::AbortOnDropHandle;
use tonic::Request;

use crate::events::forge;
use crate::harness::client::settled;
use crate::harness::system::{System, new_order, until};

const HOSTILE: &str = "Zoë Größe – 価格 100 %";

/// Subscribes to everything, and keeps the headers.
struct Recorder {
    heard: Arc<Mutex<Vec<(String, String)>>>,
    _hearing: AbortOnDropHandle<()>,
}

impl Recorder {
    async fn on(system: &System) -> Recorder {
        let nats = system.nats().await;
        let all = nats.subscribe(">").await.unwrap();
        settled(&nats).await;
        let heard = Arc::<Mutex<Vec<_>>>::default();
        let hearing = AbortOnDropHandle::new(tokio::spawn(keep(all, heard.clone())));
        Recorder { heard, _hearing: hearing }
    }

    /// Names of the headers received.
    fn names(&self) -> HashSet<String> {
        self.heard.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }

    #[track_caller]
    fn assert_visible(&self) {
        let heard = self.heard.lock().unwrap();
        let strange = |value: &str| !value.bytes().all(|b| (b' '..=b'~').contains(&b));
        let wrong: Vec<_> = heard.iter().filter(|(_, value)| strange(value)).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

async fn keep(mut all: Subscriber, heard: Arc<Mutex<Vec<(String, String)>>>) {
    while let Some(Message { headers, .. }) = all.next().await {
        for (name, values) in headers.iter().flat_map(|headers| headers.iter()) {
            let said = values.iter().map(|value| (name.to_string(), value.as_str().to_owned()));
            heard.lock().unwrap().extend(said);
        }
    }
}

#[tokio::test]
async fn every_header_is_visible_ascii_whatever_callers_write() {
    let system = System::builder().stock("lamp", 9).start().await;
    let recorder = Recorder::on(&system).await;
    let order = system.place(&new_order("lamp", 1).by(HOSTILE)).await.unwrap();
    let (order_id, status, reason) = (order.order_id, OrderStatus::Cancelled.into(), HOSTILE.to_owned());
    let request = UpdateOrderStatusRequest { order_id, status, reason, ..Default::default() };
    system.orders().update_order_status(request).await.unwrap();
    system.order(HOSTILE, 1).await.unwrap_err();
    let mut request = Request::new(new_order("lamp", 99).id("too-much").by(HOSTILE).request);
    request.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
    system.orders().create_order(request).await.unwrap_err();
    until("the refusal was seen", async || recorder.names().contains("Nats-Service-Error")).await;
    for name in ["Order-Customer", "Request-Deadline", "Nats-Service-Error-Code"] {
        assert!(recorder.names().contains(name), "{name} is not among {:?}", recorder.names());
    }
    recorder.assert_visible();
}

#[tokio::test]
async fn a_refusal_of_what_another_client_wrote_is_visible_ascii() {
    let system = System::builder().stock("lamp", 9).start().await;
    let nats = system.nats().await;
    let recorder = Recorder::on(&system).await;
    // A missing field, a product's name, an enum's value: each is quoted in the error message.
    for payload in [
        format!(r#"{{"{HOSTILE}":1}}"#),
        format!(r#"{{"requestId":"a","adjustments":[{{"productId":"{HOSTILE}","delta":1}}]}}"#),
        format!(r#"{{"requestId":"{HOSTILE}","adjustments":"{HOSTILE}"}}"#),
    ] {
        let reply = nats.request("adjust_stock", payload.into()).await.unwrap();
        let text = reply.headers.unwrap().get("Nats-Service-Error").unwrap().as_str().to_owned();
        assert!(!text.is_empty() && text.is_ascii(), "{text:?}");
    }
    recorder.assert_visible();
}

#[tokio::test]
async fn a_dead_letter_says_in_ascii_what_was_wrong_and_is_read_back_as_it_was() {
    let system =
        System::builder().stock("lamp", 9).each_worker(|config| config.max_deliver = 1).start().await;
    let recorder = Recorder::on(&system).await;
    let id = uuid::Uuid::new_v4();
    forge(&system, id, format!(r#"{{"orderId":"{HOSTILE}"}}"#).as_bytes()).await;
    until("it is a dead letter", async || recorder.names().contains("Dead-Letter-Error")).await;
    recorder.assert_visible();
    let link = Connection::connect(&Options::at(system.nats.url()), "an operator").await.unwrap();
    let letter = DeadLetters::new(&link).next(1).await.unwrap().expect("a dead letter");
    assert_eq!(letter.subject, format!("orders.event.order_created.{id}"));
    assert!(letter.error.contains("Zoë"), "{}", letter.error);
}
