//! The console: one page that shows what runs, and the figures that it asks for. It reads, and changes nothing. Nobody
//! shows a credential here, so it tells no customer, no order's id and no text of an error. Must never know a figure
//! that is not on the page for Prometheus as well.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use contract::route::{RPCS, VITAL};
use link::{Guard, Letter, Link};
use pbjson_types::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use telemetry::{Book, Page, Rendering};
use tokio::time::Instant;
use uuid::Uuid;

use super::census::{Around, State};
use crate::bridge::survey::Instance;
use crate::edge::Board;
use crate::edge::board::{Finding, GATEWAY};
use crate::feed::{Change, Feed};

/// Orders' changes that are shown.
const CHANGES: u64 = 20;
const PAGE: &str = include_str!("console.html");
/// The page says itself which script and style are its own.
const POLICY: &str = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What the console is drawn from.
#[derive(Clone)]
pub(super) struct Console {
    pub(super) book: Arc<Book>,
    pub(super) board: Board,
    pub(super) around: Around,
    pub(super) feed: Arc<Feed>,
    pub(super) link: Link,
    pub(super) guard: Guard,
    /// NATS, without secrets.
    pub(super) url: Arc<str>,
    pub(super) since: Instant,
    pub(super) aliases: Aliases,
}

/// Names for orders that tell nothing but which is which.
#[derive(Clone)]
pub(super) struct Aliases(Uuid);

impl Aliases {
    /// Names that nobody can compute.
    pub(super) fn new() -> Aliases {
        Aliases(Uuid::new_v4())
    }

    fn of(&self, order_id: &str) -> String {
        let digest = Sha256::new().chain_update(self.0).chain_update(order_id).finalize();
        digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Serves the page at `/`.
pub(super) fn router(console: Console) -> Router {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let figures = Rendering::new(move || console.figures().to_string());
    let figures = move || async move { ([(header::CONTENT_TYPE, "application/json")], figures.text().await) };
    Router::new().route("/", get(move || async move { (headers, PAGE) })).route("/console.json", get(figures))
}

impl Console {
    fn figures(&self) -> Value {
        let (page, state) = (self.book.page(), self.around.watch());
        let up = self.board.up(GATEWAY) == Some(true);
        let status = match (self.board.over(), up) {
            (true, _) => "DRAINING",
            (false, true) => "SERVING",
            (false, false) => "NOT_SERVING",
        };
        let services = self.board.all().filter(|(name, _)| name.contains('.'));
        let services: Vec<Value> = services.map(|(name, up)| json!({ "name": name, "up": up })).collect();
        let letters = state.census.stream(link::streams::DEAD_LETTERS).map_or(0, |stream| stream.messages);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now": unix_ms(),
            "uptime_seconds": self.since.elapsed().as_secs_f64(),
            "status": status,
            "findings": self.board.findings().iter().map(finding).collect::<Vec<_>>(),
            "services": services,
            "nats": self.nats(&page),
            "connections": page.number("gateway_connections", &[]),
            "watches": page.number("gateway_watches", &[]),
            "methods": RPCS.iter().map(|rpc| method(&page, rpc.name)).collect::<Vec<_>>(),
            "routes": VITAL.iter().map(|route| lane(&page, route.subject, route.queue_group)).collect::<Vec<_>>(),
            "workers": state.instances.iter().map(|worker| instance(worker, &state)).collect::<Vec<_>>(),
            "streams": streams(&state),
            "consumers": consumers(&state),
            "index": {
                "orders": page.number("gateway_index_orders", &[]),
                "lag": page.number("gateway_index_lag", &[]),
            },
            "events": self.feed.latest(CHANGES).iter().map(|of| change(of, &self.aliases)).collect::<Vec<_>>(),
            "dead_letters": state.letters.iter().map(letter).collect::<Vec<_>>(),
            "dead_letter_count": letters,
            "polled": state.current(),
        })
    }

    fn nats(&self, page: &Page) -> Value {
        let server = self.link.client().server_info();
        let connected = page.numbers("nats_connected").all(|(_, up)| up > 0.0);
        let reconnects: f64 = page.numbers("nats_reconnects_total").map(|(_, count)| count).sum();
        json!({
            "url": &*self.url,
            "connected": connected,
            "reconnects": reconnects,
            "clock_skew_ms": self.link.clock().skew_ms(),
            "findings": self.guard.findings(),
            "server": server.server_name,
            "version": server.version,
        })
    }
}

/// Why calls cannot be served.
fn finding(finding: &Finding) -> Value {
    json!({ "reason": finding.reason, "message": finding.message })
}

/// An rpc: how often it was called, and how that ended.
fn method(page: &Page, name: &str) -> Value {
    let label = [("method", name)];
    let (mut calls, mut failed, mut reasons) = (0.0, 0.0, Vec::new());
    for (labels, count) in page.numbers("gateway_calls_total").filter(|(labels, _)| labels[0] == name) {
        calls += count;
        if let [_, code, reason] = labels[..]
            && code != "OK"
        {
            failed += count;
            reasons.push(json!({ "reason": reason, "code": code, "count": count }));
        }
    }
    let ms = |share| page.quantile("gateway_call_duration_seconds", &label, share).map(|time| time * 1e3);
    json!({
        "name": name,
        "calls": calls,
        "failed": failed,
        "in_flight": page.number("gateway_calls_in_flight", &label),
        "p50_ms": ms(0.5),
        "p99_ms": ms(0.99),
        "reasons": reasons,
    })
}

/// A route: what its attempts came to.
fn lane(page: &Page, subject: &str, queue_group: &str) -> Value {
    let label = [("route", subject)];
    let number = |name: &str| page.number(&format!("gateway_route_{name}"), &label);
    let ms = |share| page.quantile("gateway_route_duration_seconds", &label, share).map(|time| time * 1e3);
    json!({
        "subject": subject,
        "queue_group": queue_group,
        "up": number("up") > 0.0,
        "attempts": number("attempts_total"),
        "retries": number("retries_total"),
        "no_responders": number("no_responders_total"),
        "timeouts": number("timeouts_total"),
        "shed": number("shed_total"),
        "in_flight": number("in_flight"),
        "limit": number("limit"),
        "p50_ms": ms(0.5),
        "p99_ms": ms(0.99),
    })
}

fn instance(worker: &Instance, state: &State) -> Value {
    json!({
        "id": worker.id,
        "name": worker.name,
        "version": worker.version,
        "requests": worker.requests,
        "failures": worker.failures,
        "clock_skew_ms": worker.clock_skew_ms,
        "subjects": worker.subjects,
        "seen_ms": state.seen.map(|seen| seen.elapsed().as_millis() as u64),
    })
}

fn streams(state: &State) -> Vec<Value> {
    let of = |stream: &link::census::StreamState| {
        json!({
            "name": stream.name,
            "messages": stream.messages,
            "bytes": stream.bytes,
            "last_sequence": stream.last,
            "leader": stream.leader,
            "replicas": stream.replicas,
            "replicas_current": stream.current,
        })
    };
    state.census.streams.iter().map(of).collect()
}

fn consumers(state: &State) -> Vec<Value> {
    let of = |consumer: &link::census::ConsumerState| {
        json!({
            "stream": consumer.stream,
            "name": consumer.name,
            "pending": consumer.pending,
            "ack_pending": consumer.unacknowledged,
            "redelivered": consumer.redelivered,
        })
    };
    state.census.consumers.iter().map(of).collect()
}

fn change(change: &Change, aliases: &Aliases) -> Value {
    let order = change.order.as_ref();
    let kind = change.kind.as_str_name().trim_start_matches("ORDER_EVENT_").to_lowercase();
    let status = order.map(|order| order.status().as_str_name().trim_start_matches("ORDER_STATUS_"));
    json!({
        "sequence": change.sequence,
        "type": format!("order_{}", kind.trim_start_matches("order_")),
        "order": order.map(|order| aliases.of(&order.order_id)),
        "status": status,
        "time": order.and_then(|order| order.update_time.as_ref()),
    })
}

fn letter(letter: &Letter) -> Value {
    let time = letter.at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp { seconds: i64::try_from(time.as_secs()).unwrap_or(0), nanos: 0 };
    json!({
        "id": letter.id,
        "type": kind(&letter.subject),
        "sequence": letter.sequence,
        "time": time,
    })
}

/// What kind of event a subject is of; the rest of it names the order.
fn kind(subject: &str) -> &str {
    let known = ["order_created", "order_status_updated"];
    subject.split('.').find_map(|token| known.into_iter().find(|kind| *kind == token)).unwrap_or("other")
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
