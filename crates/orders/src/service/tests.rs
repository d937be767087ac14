//! The calls of OrderService against a real nats-server.

use std::time::Duration;

use contract::OrderReason;
use contract::orders::v1 as pb;
use futures_util::future::join_all;
use order_streams::entry::Last;
use order_streams::event::Event;
use order_streams::order::{Moment, OrderBody};
use tokio::time::Instant;
use wire::{Delivered, ErrorReason, Failure, Reason};

use super::store::{GiveUp, Outcome, Records};
use crate::feed::fixture::{Fixture, request, soon, until};
use crate::order::event;
use crate::order::request::NewOrder;
use bridge::call::CallContext;

fn assert_refused<T: std::fmt::Debug>(result: Result<T, Failure>, reason: impl ErrorReason) -> Failure {
    let failure = result.unwrap_err();
    assert!(failure.is(reason), "{failure} is not {}", reason.name());
    failure
}

/// An order that was parsed, and its first event.
fn fresh(request_id: &str) -> (NewOrder, OrderBody, Event) {
    let order = NewOrder::parse(request(request_id, "Ann", 1), "").unwrap();
    let body = order.placed(Moment::now());
    let event = event::created(&body, &soon()).unwrap();
    (order, body, event)
}

#[tokio::test]
async fn the_same_request_id_gives_one_order_however_often_it_is_used() {
    let fixture = Fixture::open().await;
    let orders = join_all((0..32).map(|_| fixture.create("r-1", "Ann"))).await;
    let first = orders[0].clone().unwrap();
    assert!(orders.into_iter().all(|order| order.unwrap() == first));
    assert_eq!(fixture.store().range(soon().deadline).await.unwrap().last, 1);
    fixture.update(&first, pb::OrderStatus::Confirmed).await.unwrap();
    let later = fixture.create("r-1", "Ann").await.unwrap();
    assert_eq!((later.status(), later.order_id), (pb::OrderStatus::Confirmed, first.order_id));
    assert_eq!(fixture.released(), 0);
}

#[tokio::test]
async fn other_content_under_a_request_id_is_refused_and_frees_nothing() {
    let fixture = Fixture::open().await;
    let first = fixture.create("r-1", "Ann").await.unwrap();
    for other in [request("r-1", "Bob", 1), request("r-1", "Ann", 2)] {
        let failure =
            assert_refused(fixture.orders.create(other, soon()).await, OrderReason::RequestIdReused);
        assert_eq!(failure.metadata["order_id"], first.order_id);
        assert_eq!(failure.metadata["request_id"], "r-1");
    }
    assert_eq!(fixture.released(), 0);
}

#[tokio::test]
async fn a_tombstone_that_the_ledger_has_not_heard_of_costs_a_release() {
    let fixture = Fixture::open().await;
    let (order, ..) = fresh("r-1");
    let tombstone = fixture.write_tombstone(&order.id.to_string()).await;
    fixture.inventory.reserve.lock().extend([Ok(0), Ok(0)]);
    let placed = fixture.create("r-1", "Ann").await.unwrap();
    assert_eq!(placed.etag, (tombstone + 1).to_string());
    assert_eq!(fixture.released(), 1);
}

#[tokio::test]
async fn a_twins_new_reservation_behind_the_tombstone_is_not_given_back() {
    let fixture = Fixture::open().await;
    let (order, ..) = fresh("r-1");
    let tombstone = fixture.write_tombstone(&order.id.to_string()).await;
    // Ours was made before the tombstone; by now the ledger has one behind it, which a twin asked for.
    fixture.inventory.reserve.lock().push_back(Ok(0));
    let placed = fixture.create("r-1", "Ann").await.unwrap();
    assert_eq!(placed.etag, (tombstone + 1).to_string());
    assert_eq!(fixture.released(), 0);
}

#[tokio::test]
async fn a_reservation_that_is_always_given_up_ends_as_expired_with_nothing_to_give_back() {
    let fixture = Fixture::open().await;
    *fixture.inventory.expires_reservations.lock() = true;
    assert_refused(fixture.create("r-1", "Ann").await, OrderReason::ReservationExpired);
    fixture.idle().await;
    assert_eq!(fixture.released(), 0);
    *fixture.inventory.expires_reservations.lock() = false;
    fixture.create("r-1", "Ann").await.unwrap();
}

/// Waits for the only release.
async fn assert_given_back(fixture: &Fixture) {
    until("the reservation is given back", async || fixture.released() > 0).await;
    fixture.idle().await;
    assert_eq!(fixture.released(), 1);
}

#[tokio::test]
async fn a_reservation_whose_answer_is_lost_is_given_back() {
    let fixture = Fixture::open().await;
    *fixture.inventory.loses_answers.lock() = true;
    let call = CallContext::until(Instant::now() + Duration::from_millis(300));
    let failure =
        assert_refused(fixture.orders.create(request("r-1", "Ann", 1), call).await, Reason::Timeout);
    assert_eq!(failure.certainty(), Delivered::Unknown);
    assert_given_back(&fixture).await;
}

#[tokio::test]
async fn a_reservation_that_is_answered_with_nonsense_is_given_back() {
    let fixture = Fixture::open().await;
    fixture.inventory.reserve.lock().push_back(Ok(-1));
    assert_refused(fixture.create("r-1", "Ann").await, Reason::ContractViolation);
    assert_given_back(&fixture).await;
}

#[tokio::test]
async fn what_was_refused_or_never_delivered_is_not_given_back() {
    let fixture = Fixture::open().await;
    let refusals = [
        Failure::new(OrderReason::InsufficientStock, "no"),
        Failure::new(OrderReason::RequestIdReused, "no"),
        Failure::new(Reason::Overloaded, "no").delivered(Delivered::No),
    ];
    for refusal in refusals {
        fixture.inventory.reserve.lock().push_back(Err(refusal));
        fixture.create("r-1", "Ann").await.unwrap_err();
    }
    fixture.idle().await;
    assert_eq!(fixture.released(), 0);
}

#[tokio::test]
async fn a_check_that_leaves_an_item_out_breaks_the_contract() {
    let fixture = Fixture::open().await;
    *fixture.inventory.omits_an_item.lock() = true;
    for short in [false, true] {
        *fixture.inventory.short.lock() = short;
        assert_refused(fixture.create("", "Ann").await, Reason::ContractViolation);
    }
}

#[tokio::test]
async fn a_refusal_for_ones_own_recorded_order_is_a_replay() {
    let fixture = Fixture::open().await;
    let first = fixture.create("r-1", "Ann").await.unwrap();
    for reason in [OrderReason::InsufficientStock, OrderReason::OrderFinished] {
        fixture.inventory.reserve.lock().push_back(Err(Failure::new(reason, "no")));
        assert_eq!(fixture.create("r-1", "Ann").await.unwrap(), first);
        fixture.inventory.reserve.lock().push_back(Err(Failure::new(reason, "no")));
        assert_refused(fixture.create("r-1", "Bob").await, OrderReason::RequestIdReused);
    }
    let refuse = |reason| fixture.inventory.reserve.lock().push_back(Err(Failure::new(reason, "no")));
    refuse(OrderReason::InsufficientStock);
    assert_refused(fixture.create("r-2", "Ann").await, OrderReason::InsufficientStock);
    refuse(OrderReason::OrderFinished);
    assert_refused(fixture.create("r-2", "Ann").await, Reason::ContractViolation);
}

#[tokio::test]
async fn a_negative_check_is_final_only_without_a_request_id_of_ones_own() {
    let fixture = Fixture::open().await;
    *fixture.inventory.short.lock() = true;
    let failure = assert_refused(fixture.create("", "Ann").await, OrderReason::InsufficientStock);
    let made = failure.metadata["request_id"].clone();
    assert_eq!(failure.details.len(), 1);
    assert_eq!(fixture.store().range(soon().deadline).await.unwrap().last, 0);
    let named = fixture.create(&made, "Ann").await.unwrap();
    assert_eq!(named.order_id, failure.metadata["order_id"]);
}

#[tokio::test]
async fn an_order_is_placed_to_the_end_when_its_caller_leaves() {
    let fixture = Fixture::open().await;
    *fixture.inventory.delay.lock() = Duration::from_secs(1);
    tokio::select! {
        answer = fixture.create("r-1", "Ann") => panic!("an answer before the reservation: {answer:?}"),
        () = until("it is being reserved", async || *fixture.inventory.reserve_requests.lock() > 0) => {}
    }
    fixture.idle().await;
    let (order, ..) = fresh("r-1");
    let found = fixture.orders.get(pb::GetOrderRequest { order_id: order.id.to_string() }, soon()).await;
    assert_eq!(found.unwrap().customer_id, "Ann");
}

#[tokio::test]
async fn a_lost_acknowledgement_is_resolved_by_the_same_append() {
    let fixture = Fixture::open().await;
    let (order, body, event) = fresh("r-1");
    let records = Records::new(fixture.store());
    let append = |event: &Event| {
        let (event, records) = (event.clone(), records.clone());
        async move { records.append(order.id, event, 0, &soon()).await }
    };
    assert!(matches!(append(&event).await, Ok(Outcome::Stored(1))));
    let next =
        event::updated(&body.step(order_streams::status::Status::Confirmed, "", Moment::now()), 1, &soon())
            .unwrap();
    assert!(matches!(records.append(order.id, next, 1, &soon()).await, Ok(Outcome::Stored(2))));
    // Ours, although another one follows it already.
    assert!(matches!(append(&event).await, Ok(Outcome::Stored(1))));
    let (_, _, other) = fresh("r-1");
    assert!(matches!(append(&other).await, Ok(Outcome::Overtaken)));
}

#[tokio::test]
async fn an_append_that_nobody_answers_has_an_open_outcome_and_ends_in_time() {
    let fixture = Fixture::open().await;
    let (order, _, event) = fresh("r-1");
    fixture.server.pause();
    let begun = Instant::now();
    let call = CallContext::until(begun + Duration::from_millis(400));
    let given_up = Records::new(fixture.store()).append(order.id, event, 0, &call).await;
    assert!(matches!(given_up, Err(GiveUp::Open(failure)) if failure.is(Reason::OutcomeUnknown)));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    fixture.server.resume();
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let mut fixture = Fixture::open().await;
    fixture.server.stop();
    until("the connection is lost", async || !fixture.link.connected()).await;
    let (order, _, event) = fresh("r-1");
    let given_up = Records::new(fixture.store()).append(order.id, event, 0, &soon()).await;
    assert!(matches!(given_up, Err(GiveUp::Never(failure)) if failure.is(Reason::NatsDisconnected)));
    assert_refused(fixture.create("r-1", "Ann").await, Reason::NatsDisconnected);
    // However many: what ends at once takes up no room.
    for placed in join_all((0..1_000).map(|_| fixture.create("r-1", "Ann"))).await {
        assert_refused(placed, Reason::NatsDisconnected);
    }
}

#[tokio::test]
async fn a_status_moves_under_its_etag() {
    let fixture = Fixture::open().await;
    let placed = fixture.create("r-1", "Ann").await.unwrap();
    let confirmed = fixture.update(&placed, pb::OrderStatus::Confirmed).await.unwrap();
    assert_ne!(confirmed.etag, placed.etag);
    assert_eq!(confirmed.status_reason, "why not");
    // The same step again, with the etag of before: its answer was lost.
    assert_eq!(fixture.update(&placed, pb::OrderStatus::Confirmed).await.unwrap(), confirmed);
    let stale =
        assert_refused(fixture.update(&placed, pb::OrderStatus::Shipped).await, OrderReason::EtagMismatch);
    assert_eq!(stale.metadata["etag"], confirmed.etag);
    let nonsense = pb::Order { etag: "nonsense".into(), ..placed.clone() };
    assert_refused(fixture.update(&nonsense, pb::OrderStatus::Shipped).await, OrderReason::EtagMismatch);
    let illegal = assert_refused(
        fixture.update(&confirmed, pb::OrderStatus::Pending).await,
        OrderReason::IllegalTransition,
    );
    assert_eq!(illegal.metadata["from"], "ORDER_STATUS_CONFIRMED");
    assert_eq!(illegal.metadata["to"], "ORDER_STATUS_PENDING");
    let any = pb::Order { etag: String::new(), ..placed };
    assert_eq!(
        fixture.update(&any, pb::OrderStatus::Cancelled).await.unwrap().status(),
        pb::OrderStatus::Cancelled
    );
}

#[tokio::test]
async fn of_many_steps_at_once_without_an_etag_each_is_taken_or_illegal() {
    let fixture = Fixture::open().await;
    let placed = pb::Order { etag: String::new(), ..fixture.create("r-1", "Ann").await.unwrap() };
    let to = [pb::OrderStatus::Confirmed, pb::OrderStatus::Cancelled];
    let steps = join_all((0..16).map(|number| fixture.update(&placed, to[number % 2]))).await;
    let refused = |step: &Result<_, Failure>| {
        step.as_ref().is_err_and(|failure| failure.is(OrderReason::IllegalTransition))
    };
    assert!(steps.iter().all(|step| step.is_ok() || refused(step)), "{steps:?}");
    let filter = contract::subject::entries(placed.order_id.parse().unwrap());
    let last = fixture.store().last(&filter, soon().deadline).await.unwrap().unwrap();
    assert!(last.sequence <= 3);
}

#[tokio::test]
async fn a_tombstone_is_no_order() {
    let fixture = Fixture::open().await;
    let (order, ..) = fresh("r-1");
    fixture.write_tombstone(&order.id.to_string()).await;
    let find = pb::GetOrderRequest { order_id: order.id.to_string() };
    assert_refused(fixture.orders.get(find, soon()).await, Reason::NotFound);
    assert!(matches!(
        Records::new(fixture.store()).read(order.id, &soon()).await,
        Ok(Some(Last::Tombstone(1)))
    ));
}

#[tokio::test]
async fn an_order_whose_record_cannot_be_read_says_so_by_its_reason() {
    let fixture = Fixture::open().await;
    let (order, ..) = fresh("r-1");
    let subject = format!("orders.event.order_created.{}", order.id);
    fixture.append(&subject).await;
    let find = pb::GetOrderRequest { order_id: order.id.to_string() };
    assert_refused(fixture.orders.get(find, soon()).await, OrderReason::RecordUnreadable);
    assert_refused(fixture.create("r-1", "Ann").await, OrderReason::RecordUnreadable);
}

#[tokio::test]
async fn a_request_without_a_place_is_not_even_parsed() {
    let fixture = Fixture::open().await;
    let places = &fixture.orders.places;
    let gates = [&places.create, &places.get, &places.update, &places.list];
    let _taken: Vec<_> = gates.iter().flat_map(|gate| std::iter::from_fn(|| gate.enter(None).ok())).collect();
    let orders = &fixture.orders;
    assert_refused(orders.create(Default::default(), soon()).await, Reason::Overloaded);
    assert_refused(orders.get(Default::default(), soon()).await, Reason::Overloaded);
    assert_refused(orders.update(Default::default(), soon()).await, Reason::Overloaded);
    let bad = pb::ListOrdersRequest { page_size: -1, ..Default::default() };
    assert_refused(orders.list(bad, soon()).await, Reason::Overloaded);
}
