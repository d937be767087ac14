//! Console data about everything around the gateway: workers, streams and consumers. Outdated data is shown with its
//! age, and never as healthy. Must not depend on orders.

use std::time::Duration;

use nats::stats::{ReplicaState, StatsError};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::serve::cluster::{Observed, STALE, State};
use crate::serve::instances::{InstanceEntry, Presence};
use crate::serve::nodes::View;

/// Maximum length of a text from another gateway, in characters.
const TEXT: usize = 100;

/// The service instances, including those that are gone.
pub(super) fn workers(state: &State, now: Instant) -> Vec<Value> {
    let known = state.roster.looked().is_some_and(|looked| now.duration_since(looked) < STALE);
    state.roster.entries().map(|entry| worker(entry, known, now)).collect()
}

fn worker(entry: &InstanceEntry, known: bool, now: Instant) -> Value {
    let worker = &entry.instance;
    let presence = presence(entry, known);
    json!({
        "id": worker.id,
        "name": worker.name,
        "version": worker.version,
        "state": presence,
        "requests": worker.requests,
        "rate": entry.rate().filter(|_| presence == "answers"),
        "failures": worker.failures,
        "clock_skew_ms": worker.clock_skew_ms,
        "subjects": worker.endpoints.iter().map(|endpoint| &endpoint.subject).collect::<Vec<_>>(),
        "seen_ms": ms(now.duration_since(entry.seen)),
    })
}

/// Whether an instance is present. `known`: whether the last discovery request is recent.
fn presence(entry: &InstanceEntry, known: bool) -> &'static str {
    match (entry.presence(), known) {
        (Presence::Gone, _) => "gone",
        (_, false) => "unknown",
        (Presence::Here, true) => "answers",
        (Presence::Silent, true) => "silent",
    }
}

/// How many instances of each service are missing, including gateways.
pub(super) fn missing(state: &State, now: Instant) -> Vec<Value> {
    let mut all = Vec::new();
    for roster in [&state.roster, &state.gateways] {
        let mut names: Vec<&str> = roster.entries().map(|entry| entry.instance.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let missing = names.into_iter().map(|name| (name, roster.missing(name, now)));
        let told = missing.filter(|(_, count)| *count > 0);
        all.extend(told.map(|(name, count)| json!({ "name": name, "count": count })));
    }
    all
}

/// The last known state of the streams, and why one cannot be read now.
pub(super) fn streams(state: &State, now: Instant) -> Vec<Value> {
    order_streams::ALL.iter().filter_map(|name| stream(state, name, now)).collect()
}

fn stream(state: &State, name: &str, now: Instant) -> Option<Value> {
    let (known, unread) = (state.streams.get(name), state.unread(name).filter(|_| state.fresh(now)));
    let trouble = match (unread, known) {
        (Some(StatsError::NoLeader), _) => Some("no leader"),
        (Some(StatsError::Missing), _) => Some("missing"),
        (Some(StatsError::NoAnswer), _) => Some("no answer"),
        (None, Some(known)) if now.duration_since(known.read) >= STALE => Some("not known"),
        (None, Some(known)) if known.stream.leader.is_empty() => Some("no leader"),
        (None, Some(_)) => None,
        // It was not requested yet.
        (None, None) => return None,
    };
    let of = known.map(|known| &known.stream);
    Some(json!({
        "name": name,
        "trouble": trouble,
        "read_ms": known.map(|known| ms(now.duration_since(known.read))),
        "rate": known.filter(|_| trouble.is_none()).and_then(Observed::rate),
        "messages": of.map(|of| of.messages),
        "bytes": of.map(|of| of.bytes),
        "last_sequence": of.map(|of| of.last),
        "leader": of.map(|of| of.leader.as_str()).filter(|_| unread != Some(StatsError::NoLeader)),
        "replicas": of.map(|of| of.replicas),
        "replicas_current": of.map(|of| of.current),
        "followers": of.map(|of| of.followers.iter().map(follower).collect::<Vec<_>>()),
    }))
}

fn follower(of: &ReplicaState) -> Value {
    let ReplicaState { name, current, offline, lag, silent } = of;
    json!({ "node": name, "current": current, "offline": offline, "lag": lag, "silent_ms": ms(*silent) })
}

/// The durable consumers, if their state is recent.
pub(super) fn consumers(state: &State, now: Instant) -> Vec<Value> {
    let of = |consumer: &nats::stats::ConsumerState| {
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

/// This gateway and the others, including those that are gone. An empty list means that they are not known.
pub(super) fn gateways(state: &State, own: &str, now: Instant) -> Vec<Value> {
    let known = state.gateways.looked().is_some_and(|looked| now.duration_since(looked) < STALE);
    let gateway = |entry: &InstanceEntry| {
        let of = &entry.instance;
        let text = |name: &str| of.metadata.get(name).map(|text| text.chars().take(TEXT).collect::<String>());
        json!({
            "id": of.id.chars().take(TEXT).collect::<String>(),
            "this": of.id == own,
            "state": presence(entry, known),
            "status": text("status"),
            "host": text("host"),
            "grpc": text("grpc"),
            "http": text("http"),
            "version": of.version.chars().take(TEXT).collect::<String>(),
            "commit": text("commit"),
            "started_ms": text("started_ms").and_then(|ms| ms.parse::<u64>().ok()),
            "seen_ms": ms(now.duration_since(entry.seen)),
        })
    };
    state.gateways.entries().map(gateway).collect()
}

/// The known NATS servers.
pub(super) fn nodes(state: &State, own: &str, now: Instant) -> Vec<Value> {
    let node = |view: View| {
        json!({
            "name": view.name,
            "state": view.state,
            "since_ms": view.since.map(ms),
            "leads": view.leads,
            "behind": view.behind,
            "lag": view.lag,
            "version": view.version,
            "storage": view.storage.map(|(used, most)| json!({ "used": used, "max": most })),
        })
    };
    state.nodes.view(state.read(now), own, now).into_iter().map(node).collect()
}

pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
