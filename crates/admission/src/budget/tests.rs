//! The limits on held bytes, for each holder, and their release.

use telemetry::{Exposition, Source};

use super::*;

fn budget() -> MemoryBudget {
    sized(800, 150)
}

/// A budget of `all` bytes for requests, with at most `request` bytes for each.
fn sized(all: usize, request: usize) -> MemoryBudget {
    let (streams, connection_streams) = ([5, 2], [3, 1]);
    MemoryBudget::new(Size { all, request, answers: 4_000, answer: 1_000, streams, connection_streams })
}

fn reason(failure: Failure) -> String {
    assert!(failure.certainty() == wire::Delivered::No && !failure.details.is_empty(), "{failure:?}");
    format!("{} {}", failure.reason, failure.message.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

fn shed(budget: &MemoryBudget, share: &'static str) -> f64 {
    let mut page = Exposition::default();
    budget.collect(&mut page);
    page.number("gateway_request_bytes_shed_total", &[("share", share)])
}

fn holds(budget: &MemoryBudget) -> usize {
    budget.0.bytes.share.held() + budget.0.unknown.held()
}

#[test]
fn each_share_is_bounded_and_all_is_given_back() {
    let budget = budget();
    let connections: Vec<_> = (0..5).map(|_| budget.connection()).collect();
    let mut charges: Vec<_> = connections[..4].iter().map(|one| one.begin(200).unwrap()).collect();
    assert_eq!(reason(connections[0].begin(1).unwrap_err()), "OVERLOADED the connection");
    assert_eq!(reason(connections[4].begin(1).unwrap_err()), "OVERLOADED the process");
    charges.truncate(1);
    let one = connections[4].begin(150).unwrap();
    one.more(50).unwrap();
    assert_eq!(reason(one.more(1).unwrap_err()), "OVERLOADED the connection");
    let caller = Arc::new(CallerShare::default());
    one.owned(&caller).unwrap();
    let other = connections[3].begin(1).unwrap();
    assert_eq!(reason(other.owned(&caller).unwrap_err()), "QUOTA_EXCEEDED over the");
    drop((one, other, charges));
    assert_eq!((holds(&budget), caller.held()), (0, 0));
    assert!(connections.iter().all(|connection| connection.bytes.held() == 0));
    assert_eq!(shed(&budget, "process"), 1.0);
    assert_eq!(shed(&budget, "connection"), 2.0);
    assert_eq!(shed(&budget, "caller"), 1.0);
}

#[test]
fn large_requests_leave_room_for_small_ones() {
    let budget = sized(8 << 20, 1 << 20);
    let large: Vec<_> = (0..4).map(|_| budget.connection().begin(7 << 18).unwrap()).collect();
    let connection = budget.connection();
    assert_eq!(reason(connection.begin(SMALL + 1).unwrap_err()), "OVERLOADED the process");
    let small: Vec<_> = (0..1 << 5).map(|_| connection.begin(SMALL).unwrap()).collect();
    assert_eq!(reason(budget.connection().begin(1).unwrap_err()), "OVERLOADED the process");
    drop(small);
    // A request that grows beyond it is no longer small.
    let grows = connection.begin(SMALL).unwrap();
    assert!(grows.more(1).is_err());
    drop((large, grows));
    assert_eq!(holds(&budget), 0);
}

#[test]
fn who_is_not_known_leaves_most_of_it_to_others() {
    let budget = budget();
    let charges: Vec<_> = (0..2).map(|_| budget.connection().begin(100).unwrap()).collect();
    charges[0].unknown().unwrap();
    assert!(charges[1].unknown().is_err(), "a part, with room for one request");
    assert_eq!(reason(charges[0].more(60).unwrap_err()), "QUOTA_EXCEEDED over the");
    drop(charges);
    assert_eq!(holds(&budget), 0);
}

#[test]
fn one_connection_does_not_take_all_that_those_may_hold_who_are_not_known() {
    let budget = sized(3_200, 100);
    let (one, two) = (budget.connection(), budget.connection());
    let half =
        |connection: &Arc<ConnectionBudget>| connection.begin(50).and_then(|it| it.unknown().map(|()| it));
    let held: Vec<_> = std::iter::from_fn(|| half(&one).ok()).take(20).collect();
    assert_eq!(held.len(), 2);
    assert_eq!(reason(held[0].more(1).unwrap_err()), "QUOTA_EXCEEDED over the");
    let other = half(&two).unwrap();
    drop((held, other));
    assert_eq!((holds(&budget), one.unknown.held()), (0, 0));
    assert!(half(&one).is_ok());
}

#[test]
fn open_streams_are_bounded_per_connection_and_in_all() {
    let budget = budget();
    let (one, two) = (budget.connection(), budget.connection());
    let mut places: Vec<_> = (0..3).map(|_| one.open(StreamKind::Watch).unwrap()).collect();
    assert_eq!(reason(one.open(StreamKind::Watch).unwrap_err()), "OVERLOADED the connection");
    places.push(one.open(StreamKind::Reflection).unwrap());
    assert_eq!(reason(one.open(StreamKind::Reflection).unwrap_err()), "OVERLOADED the connection");
    places.extend((0..2).map(|_| two.open(StreamKind::Watch).unwrap()));
    assert_eq!(reason(two.open(StreamKind::Watch).unwrap_err()), "OVERLOADED the process");
    two.open(StreamKind::Reflection).unwrap();
    places.clear();
    assert!(one.open(StreamKind::Watch).is_ok() && one.streams.iter().all(|share| share.held() <= 1));
}
