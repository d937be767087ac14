//! How the evidence about a stream develops over time.

use super::*;

const QUORUM: Quorum = Quorum { led: true, heard: 2, of: 3 };
const ONE_OF_THREE: Quorum = Quorum { led: true, heard: 1, of: 3 };
const NO_LEADER: Quorum = Quorum { led: false, heard: 0, of: 3 };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_leader_that_hears_too_few_is_an_outage_at_once_and_a_quorum_ends_it() {
    let (mut evidence, start) = (Evidence::default(), Instant::now());
    evidence.look(start, Some(QUORUM));
    assert!(evidence.calm() && evidence.outage(start).is_none());
    evidence.look(start, Some(ONE_OF_THREE));
    assert_eq!(evidence.outage(start), Some(&Outage::NoQuorum { heard: 1, of: 3 }));
    evidence.look(start + ms(1_000), Some(QUORUM));
    assert!(evidence.calm());
}

#[test]
fn a_change_of_leaders_in_order_is_no_outage() {
    let (mut evidence, start) = (Evidence::default(), Instant::now());
    evidence.look(start, Some(NO_LEADER));
    assert_eq!(evidence.outage(start + ms(1_000)), None);
    evidence.look(start + ms(2_000), Some(NO_LEADER));
    assert_eq!(evidence.outage(start + ms(2_000)), Some(&Outage::Leaderless));
}

#[test]
fn silence_is_an_outage_unless_something_is_stored_meanwhile() {
    let (mut evidence, start) = (Evidence::default(), Instant::now());
    evidence.look(start, Some(QUORUM));
    evidence.look(start + ms(3_000), None);
    assert_eq!(evidence.outage(start + ms(3_000)), None);
    assert_eq!(evidence.outage(start + SILENCE), Some(&Outage::Silent));
    evidence.stored(start + SILENCE);
    assert!(evidence.calm());
}

#[test]
fn callers_are_told_at_once_only_when_no_election_can_end_it() {
    let (mut evidence, start) = (Evidence::default(), Instant::now());
    for second in 0..12 {
        let now = start + ms(second * 1_000);
        evidence.look(now, Some(NO_LEADER));
        assert_eq!(evidence.no_append(now).is_some(), second >= 10, "after {second} s");
        assert_eq!(evidence.no_read(now).is_some(), second >= 10, "after {second} s");
    }
    evidence.look(start + ms(12_000), Some(ONE_OF_THREE));
    assert!(evidence.no_append(start + ms(12_000)).is_some());
    assert_eq!(evidence.no_read(start + ms(12_000)), None, "a leader without a quorum can still be read");
}

#[test]
fn full_is_an_outage_until_something_is_stored_and_nothing_refused_for_a_while() {
    let (mut evidence, start) = (Evidence::default(), Instant::now());
    evidence.full(start, "maximum bytes exceeded");
    assert!(evidence.outage(start).is_some_and(Outage::full));
    assert_eq!(evidence.no_append(start), None, "an answer is quick by itself");
    evidence.stored(start + ms(100));
    assert!(evidence.outage(start + ms(100)).is_some_and(Outage::full), "a smaller one still fits");
    evidence.look(start + HOLD, Some(QUORUM));
    assert!(evidence.calm());
}

#[test]
fn full_is_not_held_against_a_stream_that_nobody_tries_any_more() {
    let (mut evidence, start) = (Evidence::default(), Instant::now());
    evidence.full(start, "insufficient resources");
    evidence.look(start + REST, Some(QUORUM));
    assert_eq!(evidence.outage(start + REST), None);
    assert!(evidence.refusal(start + REST).is_some_and(Outage::full), "it is still what is known");
}

#[test]
fn appends_that_nobody_acknowledges_are_an_outage_and_one_a_second_finds_out_whether_it_is_over() {
    let (mut evidence, start) = (Evidence::default(), Instant::now());
    evidence.unacknowledged(start);
    assert_eq!(evidence.outage(start), None);
    let later = start + ms(1_500);
    evidence.unacknowledged(later);
    evidence.look(later, Some(QUORUM));
    assert_eq!(evidence.outage(later), Some(&Outage::Unacknowledged));
    assert_eq!(evidence.no_append(later), None, "it may be an election yet");
    let known = start + KNOWN;
    evidence.unacknowledged(known);
    assert_eq!(evidence.no_append(known), None, "on trial");
    assert_eq!(evidence.no_append(known + ms(10)), Some(Outage::Unacknowledged));
    assert_eq!(evidence.no_append(known + TRIAL), None);
    evidence.stored(known + TRIAL);
    assert!(evidence.calm());
}

#[test]
fn appends_that_were_not_acknowledged_long_ago_count_for_nothing() {
    let (mut evidence, start) = (Evidence::default(), Instant::now());
    evidence.unacknowledged(start);
    evidence.unacknowledged(start + REST);
    assert_eq!(evidence.outage(start + REST), None);
}
