//! What the console tells of what is around the gateway: workers, streams and their readers. What is not known now is told
//! with its age, and nothing good is said of it. Must never know an order.

use std::time::Duration;

use link::census::{Follower, Unread};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::serve::census::{Known, STALE, State};
use crate::serve::roster::{Entry, Presence};

/// The instances of services, also those that are gone.
pub(super) fn workers(state: &State, now: Instant) -> Vec<Value> {
    let known = state.roster.looked().is_some_and(|looked| now.duration_since(looked) < STALE);
    state.roster.entries().map(|entry| worker(entry, known, now)).collect()
}

fn worker(entry: &Entry, known: bool, now: Instant) -> Value {
    let worker = &entry.instance;
    let presence = match (entry.presence(), known) {
        (Presence::Gone, _) => "gone",
        (_, false) => "unknown",
        (Presence::Here, true) => "answers",
        (Presence::Silent, true) => "silent",
    };
    json!({
        "id": worker.id,
        "name": worker.name,
        "version": worker.version,
        "state": presence,
        "requests": worker.requests,
        "rate": entry.rate().filter(|_| presence == "answers"),
        "failures": worker.failures,
        "clock_skew_ms": worker.clock_skew_ms,
        "subjects": worker.subjects,
        "seen_ms": ms(now.duration_since(entry.seen)),
    })
}

/// The services' names, and how many instances each lacks that it had.
pub(super) fn missing(state: &State, now: Instant) -> Vec<Value> {
    let mut names: Vec<&str> = state.roster.entries().map(|entry| entry.instance.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let missing = names.into_iter().map(|name| (name, state.roster.missing(name, now)));
    missing
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| json!({ "name": name, "count": count }))
        .collect()
}

/// The streams as they were read last, and why one could not be read now.
pub(super) fn streams(state: &State, now: Instant) -> Vec<Value> {
    link::streams::ALL.iter().filter_map(|name| stream(state, name, now)).collect()
}

fn stream(state: &State, name: &str, now: Instant) -> Option<Value> {
    let (known, unread) = (state.streams.get(name), state.unread(name).filter(|_| state.fresh(now)));
    let trouble = match (unread, known) {
        (Some(Unread::NoLeader), _) => Some("no leader"),
        (Some(Unread::Missing), _) => Some("missing"),
        (Some(Unread::NoAnswer), _) => Some("no answer"),
        (None, Some(known)) if now.duration_since(known.read) >= STALE => Some("not known"),
        (None, Some(known)) if known.stream.leader.is_empty() => Some("no leader"),
        (None, Some(_)) => None,
        // Nothing was asked yet.
        (None, None) => return None,
    };
    let of = known.map(|known| &known.stream);
    Some(json!({
        "name": name,
        "trouble": trouble,
        "read_ms": known.map(|known| ms(now.duration_since(known.read))),
        "rate": known.filter(|_| trouble.is_none()).and_then(Known::rate),
        "messages": of.map(|of| of.messages),
        "bytes": of.map(|of| of.bytes),
        "last_sequence": of.map(|of| of.last),
        "leader": of.map(|of| of.leader.as_str()).filter(|_| unread != Some(Unread::NoLeader)),
        "replicas": of.map(|of| of.replicas),
        "replicas_current": of.map(|of| of.current),
        "followers": of.map(|of| of.followers.iter().map(follower).collect::<Vec<_>>()),
    }))
}

fn follower(of: &Follower) -> Value {
    let Follower { name, current, offline, lag, silent } = of;
    json!({ "node": name, "current": current, "offline": offline, "lag": lag, "silent_ms": ms(*silent) })
}

/// The durable readers of streams, as far as they are known now.
pub(super) fn consumers(state: &State, now: Instant) -> Vec<Value> {
    let of = |consumer: &link::census::ConsumerState| {
        json!({
            "stream": consumer.stream,
            "name": consumer.name,
            "pending": consumer.pending,
            "ack_pending": consumer.unacknowledged,
            "redelivered": consumer.redelivered,
        })
    };
    let fresh = state.fresh(now);
    state.census.consumers.iter().filter(|_| fresh).map(of).collect()
}

pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
