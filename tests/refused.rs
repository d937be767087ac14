//! What deploy/nats/roles.conf denies: each attempt is a permission violation, and changes nothing.

use async_nats::jetstream;
use futures_util::StreamExt;
use local_nats::Server;
use nats::Connection;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::roles::{self, RoleClient, state};
use crate::harness::system::PATIENCE;

/// A server with the roles and something in every stream, without gateways and workers.
struct Setup {
    nats: Server,
    looks: Connection,
    before: Vec<Value>,
}

impl Setup {
    async fn open() -> Setup {
        let options = local_nats::Options { config: Some(roles::config()), ..Default::default() };
        let nats =
            tokio::task::spawn_blocking(|| Server::with(options)).await.unwrap().expect("a nats-server");
        let looks = Connection::connect(&roles::options(&nats.url(), "provisioner"), "looks").await.unwrap();
        order_streams::open(&looks, 1, true).await.unwrap();
        let entries = [
            ("gateway", "orders.event.order_created.one"),
            ("worker", "inventory.ledger"),
            ("worker", "dead_letters.orders.one"),
            ("worker", "$O.inventory-snapshots.C.one"),
        ];
        for (name, subject) in entries {
            let client = RoleClient::of(&nats.url(), name).await;
            let acked = jetstream::new(client.client.clone()).publish(subject, "one".into()).await.unwrap();
            acked.await.expect("an acknowledgement");
        }
        let before = state(&looks).await;
        Setup { nats, looks, before }
    }

    async fn client(&self, name: &'static str) -> RoleClient {
        RoleClient::of(&self.nats.url(), name).await
    }

    /// Asserts that everything is unchanged, and that there is no new stream.
    async fn unchanged(&self) {
        assert_eq!(state(&self.looks).await, self.before);
        let names = jetstream::new(self.looks.client().clone()).stream_names().count().await;
        assert_eq!(names, order_streams::ALL.len());
    }
}

/// Asserts that a role cannot publish to any of these, and that nothing changes.
async fn refused(name: &'static str, subjects: &[&str]) {
    let setup = Setup::open().await;
    let client = setup.client(name).await;
    for subject in subjects {
        client.publish_is_denied(subject, "{}").await;
    }
    setup.unchanged().await;
}

/// Asserts that a role cannot subscribe to any of these.
async fn cannot_subscribe(name: &'static str, subjects: &[&str]) {
    let setup = Setup::open().await;
    let client = setup.client(name).await;
    for subject in subjects {
        client.subscribe_is_denied(subject, None).await;
    }
}

/// Asserts that a role cannot change ORDERS so that it can be purged, or create a stream that captures requests.
async fn no_streams(name: &'static str) {
    let setup = Setup::open().await;
    let client = setup.client(name).await;
    let mut orders = setup.before[0][0].clone();
    orders["deny_purge"] = false.into();
    client.publish_is_denied("$JS.API.STREAM.UPDATE.ORDERS", &orders.to_string()).await;
    let thief = json!({"name": "THIEF", "subjects": ["check_inventory"]}).to_string();
    client.publish_is_denied("$JS.API.STREAM.CREATE.THIEF", &thief).await;
    setup.unchanged().await;
}

#[tokio::test]
async fn nobody_connects_without_a_password() {
    let setup = Setup::open().await;
    assert!(async_nats::connect(setup.nats.url()).await.is_err());
    let wrong = roles::by(nats::Options::at(setup.nats.url()), "worker", "gateway's secret");
    let refused = Connection::connect(&wrong, "wrong password").await.err().unwrap().to_string();
    assert!(refused.contains("authorization violation"), "{refused}");
}

#[tokio::test]
async fn a_gateway_cannot_subscribe_to_a_foreign_inbox() {
    cannot_subscribe("gateway", &["_INBOX_worker.>", "_INBOX_operator.>", "_INBOX.>", "_INBOX_gateway", ">"])
        .await;
}

#[tokio::test]
async fn a_gateway_does_not_write_into_a_foreign_inbox() {
    refused("gateway", &["_INBOX_worker.1", "_INBOX_subscriber.1", "_INBOX.1"]).await;
}

#[tokio::test]
async fn a_gateway_deletes_no_stream_and_nothing_in_one() {
    let streams = ["ORDERS", "INVENTORY", "DEAD_LETTERS"];
    let delete = ["$JS.API.STREAM.DELETE", "$JS.API.STREAM.MSG.DELETE"];
    let all: Vec<_> = streams.iter().flat_map(|name| delete.map(|verb| format!("{verb}.{name}"))).collect();
    refused("gateway", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_gateway_makes_and_changes_no_stream() {
    no_streams("gateway").await;
}

#[tokio::test]
async fn a_gateway_purges_nothing() {
    refused("gateway", &["$JS.API.STREAM.PURGE.ORDERS", "$JS.API.STREAM.PURGE.INVENTORY"]).await;
}

#[tokio::test]
async fn a_gateway_does_not_write_the_ledger_its_snapshots_or_a_dead_letter() {
    let others = ["inventory.ledger", "$O.inventory-snapshots.C.two", "dead_letters.orders.two"];
    refused("gateway", &others).await;
}

#[tokio::test]
async fn a_gateway_writes_no_tombstone_and_no_event_of_another_kind() {
    refused("gateway", &["orders.fence.expired.one", "orders.event.order_deleted.one"]).await;
}

#[tokio::test]
async fn a_gateway_publishes_order_events_nowhere_but_into_the_record() {
    refused("gateway", &["order_created", "order_status_updated"]).await;
}

#[tokio::test]
async fn a_gateway_does_not_do_what_is_an_operators() {
    refused("gateway", &["redeliver_event", "list_reservations", "settle_reservation"]).await;
}

#[tokio::test]
async fn a_gateway_leaves_the_consumers_of_others_alone() {
    let verbs = ["CREATE", "MSG.NEXT", "DELETE"];
    let of = |verb: &str| {
        ["inventory-worker", "subscriber"].map(|name| format!("$JS.API.CONSUMER.{verb}.ORDERS.{name}"))
    };
    let mut all: Vec<_> = verbs.iter().flat_map(|verb| of(verb)).collect();
    all.push("$JS.API.CONSUMER.CREATE.ORDERS.inventory-worker.orders.event.*.*".to_owned());
    all.push("$JS.API.CONSUMER.DURABLE.CREATE.ORDERS.inventory-worker".to_owned());
    refused("gateway", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_gateway_answers_no_requests() {
    let setup = Setup::open().await;
    let gateway = setup.client("gateway").await;
    gateway.subscribe_is_denied("check_inventory", Some("inventory-check")).await;
    gateway.subscribe_is_denied("adjust_stock", None).await;
    gateway.subscribe_is_denied("$SRV.INFO", None).await;
}

#[tokio::test]
async fn a_worker_cannot_subscribe_to_a_foreign_inbox() {
    cannot_subscribe("worker", &["_INBOX_gateway.>", "_INBOX_operator.>", "_INBOX.>", ">"]).await;
}

#[tokio::test]
async fn a_worker_writes_into_no_inbox_of_those_who_do_not_ask_it() {
    refused("worker", &["_INBOX_provisioner.1", "_INBOX_subscriber.1", "_INBOX.1"]).await;
}

#[tokio::test]
async fn a_worker_deletes_no_stream_and_nothing_in_one() {
    let subjects = [
        "$JS.API.STREAM.DELETE.ORDERS",
        "$JS.API.STREAM.DELETE.INVENTORY",
        "$JS.API.STREAM.MSG.DELETE.ORDERS",
        "$JS.API.STREAM.MSG.DELETE.INVENTORY",
        "$JS.API.STREAM.MSG.DELETE.DEAD_LETTERS",
    ];
    refused("worker", &subjects).await;
}

#[tokio::test]
async fn a_worker_makes_and_changes_no_stream() {
    no_streams("worker").await;
}

#[tokio::test]
async fn a_worker_purges_neither_orders_nor_dead_letters() {
    refused("worker", &["$JS.API.STREAM.PURGE.ORDERS", "$JS.API.STREAM.PURGE.DEAD_LETTERS"]).await;
}

#[tokio::test]
async fn a_worker_writes_no_order_event() {
    refused(
        "worker",
        &["orders.event.order_created.two", "orders.event.order_status_updated.one", "order_created"],
    )
    .await;
}

#[tokio::test]
async fn a_worker_sends_no_requests() {
    refused("worker", &["adjust_stock", "check_inventory", "settle_reservation"]).await;
}

#[tokio::test]
async fn a_worker_hears_requests_in_their_queue_group_alone() {
    let setup = Setup::open().await;
    let worker = setup.client("worker").await;
    worker.subscribe_is_denied("adjust_stock", None).await;
    worker.subscribe_is_denied("reserve_inventory", Some("eavesdroppers")).await;
    worker.subscribe_is_denied("order_created", None).await;
}

#[tokio::test]
async fn a_worker_leaves_the_consumers_of_others_alone() {
    let subjects = [
        "$JS.API.CONSUMER.CREATE.ORDERS.subscriber",
        "$JS.API.CONSUMER.MSG.NEXT.ORDERS.subscriber",
        "$JS.API.CONSUMER.DELETE.ORDERS.inventory-worker",
    ];
    refused("worker", &subjects).await;
}

#[tokio::test]
async fn a_subscriber_cannot_subscribe_to_a_foreign_inbox() {
    cannot_subscribe("subscriber", &["_INBOX_gateway.>", "_INBOX_worker.>", "_INBOX.>", ">"]).await;
}

#[tokio::test]
async fn a_subscriber_hears_no_requests_and_no_ledger() {
    cannot_subscribe("subscriber", &["check_inventory", "adjust_stock", "inventory.ledger", "orders.>"])
        .await;
}

#[tokio::test]
async fn a_subscriber_deletes_purges_makes_and_changes_no_stream() {
    refused("subscriber", &["$JS.API.STREAM.DELETE.ORDERS", "$JS.API.STREAM.PURGE.ORDERS"]).await;
    no_streams("subscriber").await;
}

#[tokio::test]
async fn a_subscriber_publishes_no_order_event() {
    refused("subscriber", &["orders.event.order_created.two", "order_created", "order_status_updated"]).await;
}

#[tokio::test]
async fn a_subscriber_sends_no_requests() {
    refused("subscriber", &["check_inventory", "adjust_stock", "$SRV.INFO", "$JS.API.STREAM.INFO.ORDERS"])
        .await;
}

#[tokio::test]
async fn a_subscriber_cannot_have_an_answer_sent_into_the_ledger() {
    let setup = Setup::open().await;
    let subscriber = setup.client("subscriber").await.client;
    let (question, inbox) = ("orders.API.CONSUMER.INFO.ORDERS.subscriber", subscriber.new_inbox());
    let mut answers = subscriber.subscribe(inbox.clone()).await.unwrap();
    for reply in ["inventory.ledger".to_owned(), inbox] {
        subscriber.publish_with_reply(question, reply, "".into()).await.unwrap();
    }
    // The server has answered the second request, so the first reply was also delivered.
    let answer = timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer.payload).contains("consumer not found"), "{answer:?}");
    setup.unchanged().await;
}

#[tokio::test]
async fn an_operator_deletes_changes_and_purges_no_stream_of_orders_and_writes_none() {
    let subjects = [
        "$JS.API.STREAM.DELETE.ORDERS",
        "$JS.API.STREAM.UPDATE.ORDERS",
        "$JS.API.STREAM.PURGE.ORDERS",
        "$JS.API.STREAM.MSG.DELETE.ORDERS",
        "orders.event.order_created.two",
        "adjust_stock",
    ];
    refused("operator", &subjects).await;
    cannot_subscribe("operator", &["_INBOX_gateway.>", "check_inventory"]).await;
}

#[tokio::test]
async fn a_provisioner_deletes_no_stream_reads_no_order_and_writes_nothing() {
    let subjects = [
        "$JS.API.STREAM.DELETE.ORDERS",
        "$JS.API.STREAM.PURGE.ORDERS",
        "$JS.API.STREAM.MSG.GET.ORDERS",
        "$JS.API.CONSUMER.DELETE.ORDERS.inventory-worker",
        "$JS.API.STREAM.CREATE.OTHER",
        "orders.event.order_created.two",
        "inventory.ledger",
        "check_inventory",
    ];
    refused("provisioner", &subjects).await;
    cannot_subscribe("provisioner", &["_INBOX_gateway.>", "order_created"]).await;
}

#[tokio::test]
async fn break_glass_reads_and_writes_no_message_and_takes_nothing_from_orders() {
    let subjects = [
        "$JS.API.STREAM.MSG.GET.ORDERS",
        "$JS.API.STREAM.MSG.DELETE.ORDERS",
        "$JS.API.STREAM.CREATE.OTHER",
        "$JS.API.STREAM.SNAPSHOT.ORDERS",
        "$JS.API.CONSUMER.CREATE.ORDERS.other",
        "orders.event.order_created.two",
        "inventory.ledger",
        "settle_reservation",
        "$SYS.REQ.SERVER.PING",
    ];
    refused("breakglass", &subjects).await;
    cannot_subscribe("breakglass", &["_INBOX_operator.>", "order_created", ">"]).await;
    let setup = Setup::open().await;
    let breakglass = setup.client("breakglass").await.client;
    let purge = breakglass.request("$JS.API.STREAM.PURGE.ORDERS", "".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&purge.payload).contains("stream purge not permitted"), "{purge:?}");
    setup.unchanged().await;
}

#[tokio::test]
async fn the_system_user_changes_nothing_and_reaches_no_stream() {
    let subjects = [
        "$JS.API.META.LEADER.STEPDOWN",
        "$JS.API.SERVER.REMOVE",
        "$SYS.REQ.ACCOUNT.ORDERS.CONNZ",
        "$JS.API.STREAM.INFO.ORDERS",
        "orders.event.order_created.two",
    ];
    refused("system", &subjects).await;
    cannot_subscribe("system", &["_INBOX_operator.>", "$SYS.>", "order_created", ">"]).await;
    refused("breakglass_system", &["$JS.API.STREAM.INFO.ORDERS", "$JS.API.ACCOUNT.PURGE.ORDERS"]).await;
}

#[tokio::test]
async fn a_worker_may_purge_the_ledger_as_a_purge_cannot_be_narrowed() {
    let setup = Setup::open().await;
    let worker = jetstream::new(setup.client("worker").await.client.clone());
    let ledger = worker.get_stream(order_streams::INVENTORY).await.unwrap();
    assert_eq!(ledger.purge().await.unwrap().purged, 1);
}
