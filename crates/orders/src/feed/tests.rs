//! Lists and watches of a record on a real nats-server.

mod lost;
mod shares;

use std::pin::Pin;
use std::time::Duration;

use contract::OrderReason;
use contract::orders::v1 as pb;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout};
use wire::{Failure, Reason};

use super::fixture::{Fixture, Random, Seed, soon, until};
use super::{Feed, Limits};
use crate::service::Orders;
use bridge::call::CallContext;

const SMALL: Limits = Limits { entries: 8, bytes: 1 << 20, preload: 0, watches: 4, replays: 1, reads: 2 };

type Watch = Pin<Box<dyn Stream<Item = Result<pb::WatchOrdersResponse, Failure>> + Send>>;

async fn watch((feed, orders): (&Feed, &Orders), request: pb::WatchOrdersRequest) -> Result<Watch, Failure> {
    let (whose, from, place) = orders.follow(request, soon()).await?;
    Ok(Box::pin(feed.watch(whose, from, place)?))
}

fn resume(token: &str) -> pb::WatchOrdersRequest {
    pb::WatchOrdersRequest { resume_token: token.into(), ..Default::default() }
}

async fn next(watch: &mut Watch) -> Result<pb::WatchOrdersResponse, Failure> {
    timeout(Duration::from_secs(20), watch.next()).await.expect("nothing came").expect("the watch ended")
}

/// The next bookmark's token.
async fn bookmark(watch: &mut Watch) -> String {
    let message = next(watch).await.unwrap();
    assert_eq!((message.event(), message.order), (pb::OrderEvent::Bookmark, None));
    message.resume_token
}

/// The customers of the next changes.
async fn customers(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut customers = Vec::new();
    while customers.len() < count {
        customers.push(next(watch).await.unwrap().order.unwrap().customer_id);
    }
    customers
}

async fn place(fixture: &Fixture, numbers: std::ops::Range<u32>) -> Vec<String> {
    let mut customers = Vec::new();
    for number in numbers {
        customers.push(fixture.create("", &format!("c{number}")).await.unwrap().customer_id);
    }
    customers
}

async fn list(orders: &Orders, request: pb::ListOrdersRequest) -> Result<pb::ListOrdersResponse, Failure> {
    orders.list(request, soon()).await.map(|(page, _)| page)
}

#[tokio::test]
async fn a_list_includes_every_change_acknowledged_before_it() {
    let fixture = Fixture::open().await;
    for number in 0..50 {
        let order = fixture.create("", "Ann").await.unwrap();
        let newest = pb::ListOrdersRequest { page_size: 1, ..Default::default() };
        assert_eq!(list(&fixture.orders, newest).await.unwrap().orders[0], order);
        if number % 2 == 0 {
            let moved = fixture.update(&order, pb::OrderStatus::Confirmed).await.unwrap();
            let confirmed = pb::ListOrdersRequest {
                statuses: vec![pb::OrderStatus::Confirmed.into()],
                page_size: 1,
                ..Default::default()
            };
            assert_eq!(list(&fixture.orders, confirmed).await.unwrap().orders, [moved]);
        }
    }
}

#[tokio::test]
async fn pages_of_a_customer_are_whole_and_their_tokens_are_theirs_alone() {
    let fixture = Fixture::open().await;
    let mut placed = Vec::new();
    for number in 0..25 {
        let order = fixture.create("", ["Ann", "Bob"][number % 2]).await.unwrap();
        placed.extend((number % 2 == 0).then_some(order.order_id));
    }
    placed.reverse();
    // Another gateway reads the history first.
    let (feed, orders) = fixture.gateway(SMALL).await;
    feed.caught_up().await;
    let mut request = pb::ListOrdersRequest { customer_id: "Ann".into(), page_size: 5, ..Default::default() };
    let mut listed = Vec::new();
    loop {
        // Any gateway takes the token of any other.
        let on = [&fixture.orders, &orders][listed.len() / 5 % 2];
        let page = list(on, request.clone()).await.unwrap();
        listed.extend(page.orders.into_iter().map(|order| order.order_id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
        let other = pb::ListOrdersRequest { customer_id: "Bob".into(), ..request.clone() };
        assert!(list(&orders, other).await.unwrap_err().is(Reason::InvalidRequest));
        let tampered =
            pb::ListOrdersRequest { page_token: format!("{}A", request.page_token), ..request.clone() };
        assert!(list(&orders, tampered).await.unwrap_err().is(Reason::InvalidRequest));
    }
    assert_eq!(listed, placed);
}

#[tokio::test]
async fn a_watch_says_each_change_of_its_orders_once() {
    let fixture = Fixture::open().await;
    let early = fixture.create("", "Ann").await.unwrap();
    let on = (&*fixture.feed, &fixture.orders);
    let mut all = watch(on, pb::WatchOrdersRequest::default()).await.unwrap();
    let of_ann = pb::WatchOrdersRequest { customer_id: "Ann".into(), ..Default::default() };
    let mut ann = watch(on, of_ann).await.unwrap();
    let of_one = pb::WatchOrdersRequest { order_id: early.order_id.clone(), ..Default::default() };
    let mut one = watch(on, of_one).await.unwrap();
    for watch in [&mut all, &mut ann, &mut one] {
        bookmark(watch).await;
    }
    let bob = fixture.create("", "Bob").await.unwrap();
    fixture.write_tombstone("6b1d1a52-5dd0-5e5c-9c3a-2f3a8f3b8b51").await;
    let moved = fixture.update(&early, pb::OrderStatus::Confirmed).await.unwrap();
    let late = fixture.create("", "Ann").await.unwrap();
    let created = |order: &pb::Order| (pb::OrderEvent::Created, order.clone());
    let updated = (pb::OrderEvent::StatusUpdated, moved);
    let expected = [
        (&mut all, vec![created(&bob), updated.clone(), created(&late)]),
        (&mut ann, vec![updated.clone(), created(&late)]),
        (&mut one, vec![updated]),
    ];
    for (watch, changes) in expected {
        for change in changes {
            let message = next(watch).await.unwrap();
            assert_eq!((message.event(), message.order.unwrap()), change);
        }
    }
}

#[tokio::test]
async fn an_old_token_is_served_from_the_history_without_gap_or_duplicate() {
    let fixture = Fixture::with(SMALL).await;
    let on = (&*fixture.feed, &fixture.orders);
    let begin = bookmark(&mut watch(on, resume("")).await.unwrap()).await;
    let mut placed = place(&fixture, 0..40).await;
    let mut old = watch(on, resume(&begin)).await.unwrap();
    bookmark(&mut old).await;
    let (seen, more) = tokio::join!(customers(&mut old, 60), place(&fixture, 40..60));
    placed.extend(more);
    assert_eq!(seen, placed);
    // After a restart of the gateway, from anywhere.
    let (feed, orders) = fixture.gateway(SMALL).await;
    for skip in [0, 17, 59, 60] {
        let mut token = begin.clone();
        let mut first = watch((&feed, &orders), resume(&begin)).await.unwrap();
        bookmark(&mut first).await;
        for _ in 0..skip {
            token = next(&mut first).await.unwrap().resume_token;
        }
        drop(first);
        // The only permit of the pool is free again when the replay has noticed.
        let mut rest = None;
        until("the replay's permit is free", async || {
            rest = watch((&feed, &orders), resume(&token)).await.ok();
            rest.is_some()
        })
        .await;
        let mut rest = rest.unwrap();
        bookmark(&mut rest).await;
        assert_eq!(customers(&mut rest, 60 - skip).await, placed[skip..]);
    }
}

#[tokio::test]
async fn tokens_of_elsewhere_and_places_that_are_taken_are_refused() {
    let fixture = Fixture::with(SMALL).await;
    let on = (&*fixture.feed, &fixture.orders);
    let begin = bookmark(&mut watch(on, resume("")).await.unwrap()).await;
    let ahead = fixture.feed.tokens().resume(7);
    let foreign = super::Tokens::new("another").resume(0);
    for token in ["nonsense", &ahead, &foreign, &begin[1..]] {
        assert!(watch(on, resume(token)).await.err().unwrap().is(Reason::InvalidRequest), "{token}");
    }
    place(&fixture, 0..40).await;
    let (feed, orders) = fixture.gateway(Limits { replays: 0, ..SMALL }).await;
    let mut refused = watch((&feed, &orders), resume(&begin)).await.unwrap();
    bookmark(&mut refused).await;
    assert!(next(&mut refused).await.unwrap_err().is(Reason::Overloaded));
    drop(refused);
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(watch((&feed, &orders), resume("")).await.unwrap());
    }
    assert!(watch((&feed, &orders), resume("")).await.err().unwrap().is(Reason::Overloaded));
}

#[tokio::test]
async fn without_a_place_nothing_is_read_for_a_watch() {
    let fixture = Fixture::with(SMALL).await;
    let on = (&*fixture.feed, &fixture.orders);
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(watch(on, resume("")).await.unwrap());
    }
    fixture.server.pause();
    for token in ["", "nonsense"] {
        let refused = timeout(Duration::from_secs(2), watch(on, resume(token))).await;
        assert!(refused.expect("it was read").err().unwrap().is(Reason::Overloaded));
    }
    fixture.server.resume();
}

#[tokio::test]
async fn the_reads_of_all_lists_take_turns_and_end_in_time() {
    let fixture = Fixture::with(SMALL).await;
    let placed = place(&fixture, 0..30).await;
    let turns = [fixture.feed.turn(&soon()).await.unwrap(), fixture.feed.turn(&soon()).await.unwrap()];
    let call = || CallContext::until(Instant::now() + Duration::from_millis(200));
    let late = fixture.orders.list(pb::ListOrdersRequest::default(), call()).await.unwrap_err();
    assert!(late.is(Reason::Timeout), "{late}");
    let late = fixture.orders.follow(resume(""), call()).await.err().unwrap();
    assert!(late.is(Reason::Timeout), "{late}");
    drop(turns);
    let lists = (0..16).map(|_| list(&fixture.orders, pb::ListOrdersRequest::default()));
    for page in futures_util::future::join_all(lists).await {
        assert_eq!(page.unwrap().orders.len(), placed.len());
    }
}

#[tokio::test]
async fn a_slow_watcher_ends_with_a_token_and_the_others_do_not_notice() {
    let fixture = Fixture::with(SMALL).await;
    let on = (&*fixture.feed, &fixture.orders);
    let (mut slow, mut fast) = (watch(on, resume("")).await.unwrap(), watch(on, resume("")).await.unwrap());
    bookmark(&mut slow).await;
    bookmark(&mut fast).await;
    place(&fixture, 0..1).await;
    assert_eq!(customers(&mut slow, 1).await, ["c0"]);
    let (seen, placed) = tokio::join!(customers(&mut fast, 31), place(&fixture, 1..31));
    assert_eq!(seen[1..], placed);
    let ended = next(&mut slow).await.unwrap_err();
    assert!(ended.is(OrderReason::SlowWatcher), "{ended}");
    assert!(slow.next().await.is_none());
    let mut again = watch(on, resume(&ended.metadata["resume_token"])).await.unwrap();
    bookmark(&mut again).await;
    assert_eq!(customers(&mut again, 30).await, placed);
}

#[tokio::test]
async fn a_drain_ends_every_watch_with_a_token() {
    let fixture = Fixture::open().await;
    let on = (&*fixture.feed, &fixture.orders);
    let mut open = watch(on, resume("")).await.unwrap();
    bookmark(&mut open).await;
    fixture.feed.end();
    let ended = next(&mut open).await.unwrap_err();
    assert!(ended.is(Reason::Draining));
    place(&fixture, 0..3).await;
    assert!(watch(on, resume("")).await.err().unwrap().is(Reason::Draining));
    let (feed, orders) = fixture.gateway(Limits::default()).await;
    let mut again = watch((&feed, &orders), resume(&ended.metadata["resume_token"])).await.unwrap();
    bookmark(&mut again).await;
    assert_eq!(customers(&mut again, 3).await, ["c0", "c1", "c2"]);
}

#[tokio::test]
async fn watches_and_lists_go_on_after_nats_was_away() {
    let mut fixture = Fixture::open().await;
    let mut open = watch((&fixture.feed, &fixture.orders), resume("")).await.unwrap();
    bookmark(&mut open).await;
    let mut placed = place(&fixture, 0..5).await;
    assert_eq!(customers(&mut open, 5).await, placed);
    for round in 1..3 {
        if round == 1 {
            fixture.server.stop()
        } else {
            fixture.server.kill()
        }
        until("the connection is lost", async || !fixture.link.connected()).await;
        assert!(timeout(Duration::from_secs(1), open.next()).await.is_err(), "the watch ended");
        fixture.server.restart().unwrap();
        fixture.connected().await;
        let more = place(&fixture, round * 5..round * 5 + 5).await;
        assert_eq!(customers(&mut open, 5).await, more);
        placed.extend(more);
    }
    let page = list(&fixture.orders, pb::ListOrdersRequest::default()).await.unwrap();
    let listed: Vec<_> = page.orders.into_iter().rev().map(|order| order.customer_id).collect();
    assert_eq!(listed, placed);
}

#[tokio::test]
async fn entries_that_nobody_can_read_are_left_out_and_keep_nothing_from_the_rest() {
    let fixture = Fixture::open().await;
    let mut open = watch((&fixture.feed, &fixture.orders), resume("")).await.unwrap();
    bookmark(&mut open).await;
    let subject = "orders.event.order_created.6b1d1a52-5dd0-5e5c-9c3a-2f3a8f3b8b51";
    fixture.append(subject).await;
    place(&fixture, 0..1).await;
    assert_eq!(customers(&mut open, 1).await, ["c0"]);
    assert_eq!(list(&fixture.orders, pb::ListOrdersRequest::default()).await.unwrap().orders.len(), 1);
}

/// A client that disconnects now and then, is slow at times, and resumes with its last token.
async fn follow(on: (&Feed, &Orders), begin: &str, count: usize, mut random: Random) -> Vec<String> {
    let (mut seen, mut token) = (Vec::new(), begin.to_owned());
    while seen.len() < count {
        let mut open = match watch(on, resume(&token)).await {
            Ok(open) => open,
            Err(failure) => panic!("{failure}"),
        };
        for _ in 0..random.below(41) {
            let message = match timeout(Duration::from_millis(300), open.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(failure))) => {
                    assert!(
                        failure.is(OrderReason::SlowWatcher) || failure.is(Reason::Overloaded),
                        "{failure}"
                    );
                    token.clone_from(&failure.metadata["resume_token"]);
                    break;
                }
                Ok(None) => panic!("a watch ended without a word"),
                Err(_) => break,
            };
            token = message.resume_token;
            seen.extend(message.order.map(|order| order.customer_id));
            if random.below(10) == 0 {
                // A slow client.
                sleep(Duration::from_millis(random.below(21))).await;
            }
        }
    }
    seen
}

#[tokio::test]
async fn clients_that_come_and_go_get_each_change_once_between_them() {
    let fixture = Fixture::with(Limits { watches: 64, replays: 3, ..SMALL }).await;
    let on = (&*fixture.feed, &fixture.orders);
    let begin = bookmark(&mut watch(on, resume("")).await.unwrap()).await;
    let seed = Seed::new();
    let clients =
        futures_util::future::join_all((0..8).map(|client| follow(on, &begin, 300, seed.random(client))));
    let (placed, seen) = tokio::join!(place(&fixture, 0..300), clients);
    for seen in seen {
        assert_eq!(seen, placed);
    }
}
