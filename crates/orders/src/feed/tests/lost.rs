//! Entries that are lost from the middle of the record: the others are still served.

use super::*;

/// A gateway that starts now, once it is ready.
async fn late(fixture: &Fixture, limits: Limits) -> (std::sync::Arc<Feed>, Orders) {
    let (feed, orders) = fixture.gateway(limits).await;
    timeout(Duration::from_secs(15), feed.caught_up()).await.expect("the index is never built");
    (feed, orders)
}

async fn listed(orders: &Orders) -> Vec<String> {
    let page = list(orders, pb::ListOrdersRequest::default()).await.unwrap();
    page.orders.into_iter().rev().map(|order| order.customer_id).collect()
}

#[tokio::test]
async fn entries_lost_inside_the_record_stop_neither_lists_nor_watches() {
    let fixture = Fixture::deletable().await;
    let begin = bookmark(&mut watch((&fixture.feed, &fixture.orders), resume("")).await.unwrap()).await;
    let mut placed = place(&fixture, 0..40).await;
    for sequence in [20, 9, 8, 7] {
        fixture.lose(sequence).await;
        placed.remove(usize::try_from(sequence).unwrap() - 1);
    }
    // One reads all of it into its ring; the other starts later, and reads the history for its index and its watches.
    for limits in [Limits::default(), SMALL] {
        let (feed, orders) = late(&fixture, limits).await;
        assert_eq!(listed(&orders).await, placed);
        let mut old = watch((&feed, &orders), resume(&begin)).await.unwrap();
        bookmark(&mut old).await;
        assert_eq!(customers(&mut old, placed.len()).await, placed);
        let more = place(&fixture, 40..41).await;
        assert_eq!(customers(&mut old, 1).await, more);
        placed.extend(more);
        assert_eq!(listed(&orders).await, placed);
    }
}

#[tokio::test]
async fn entries_lost_at_the_end_of_the_record_do_not_stop_a_start() {
    let fixture = Fixture::deletable().await;
    let mut placed = place(&fixture, 0..5).await;
    for sequence in [4, 5] {
        fixture.lose(sequence).await;
    }
    placed.truncate(3);
    let (_feed, orders) = late(&fixture, Limits::default()).await;
    assert_eq!(listed(&orders).await, placed);
    placed.extend(place(&fixture, 5..7).await);
    assert_eq!(listed(&orders).await, placed);
}

#[tokio::test]
async fn an_order_whose_last_entry_is_lost_is_listed_as_the_rest_says() {
    let fixture = Fixture::deletable().await;
    let placed = fixture.create("", "Ann").await.unwrap();
    let other = fixture.create("", "Bob").await.unwrap();
    let moved = fixture.update(&placed, pb::OrderStatus::Confirmed).await.unwrap();
    fixture.update(&other, pb::OrderStatus::Confirmed).await.unwrap();
    let all = || list(&fixture.orders, pb::ListOrdersRequest::default());
    assert_eq!(all().await.unwrap().orders[1], moved);
    fixture.lose(3).await;
    assert_eq!(all().await.unwrap().orders[1], placed);
    let confirmed =
        pb::ListOrdersRequest { statuses: vec![pb::OrderStatus::Confirmed.into()], ..Default::default() };
    assert_eq!(list(&fixture.orders, confirmed).await.unwrap().orders.len(), 1);
    fixture.lose(1).await;
    assert_eq!(listed(&fixture.orders).await, ["Bob"]);
}
