//! The console: one page that shows the system, and the data that it fetches. It is read-only. It requires no
//! credentials, so it shows no customers, order ids or error texts. Must not use a metric that is not also exported to
//! Prometheus.

mod cluster;
mod traffic;

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use nats::{Connection, Guard};
use order_streams::DeadLetter;
use pbjson_types::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use telemetry::{Exposition, Registry, Rendering};
use tokio::time::Instant;
use uuid::Uuid;

use super::cluster::{ClusterState, STALE, State};
use super::identity::{Identity, status};
use super::window::{COUNTED, TIMED, View, Windows};
use orders::feed::{Change, Feed};
use server::registry::{Finding, Standing};
use server::{Current, HealthRegistry};

/// Number of order changes that are shown.
const CHANGES: u64 = 20;
const PAGE: &str = include_str!("console.html");
/// The page itself contains the policy for its script and style.
const POLICY: &str = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The data sources of the console.
#[derive(Clone)]
pub(super) struct Console {
    /// What is served.
    pub(super) current: Current,
    pub(super) registry: Arc<Registry>,
    pub(super) board: HealthRegistry,
    pub(super) identity: Identity,
    pub(super) around: ClusterState,
    pub(super) windows: Windows,
    /// None without the order system.
    pub(super) feed: Option<Arc<Feed>>,
    pub(super) link: Connection,
    pub(super) guard: Guard,
    /// The URL of NATS, without secrets.
    pub(super) url: Arc<str>,
    pub(super) since: Instant,
    /// Whether the servers' monitoring ports are known.
    pub(super) monitored: bool,
    pub(super) aliases: Aliases,
}

/// Pseudonyms of orders, which only tell them apart.
#[derive(Clone)]
pub(super) struct Aliases(Uuid);

impl Aliases {
    /// Pseudonyms with a random key, so that they cannot be computed from order ids.
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
    /// The latest changes of orders.
    fn changes(&self) -> Vec<Value> {
        let latest = self.feed.iter().flat_map(|feed| feed.latest(CHANGES));
        latest.map(|of| change(&of, &self.aliases)).collect()
    }

    fn figures(&self) -> Value {
        let (page, now) = (self.registry.page(), Instant::now());
        let view = self.windows.view(&page, now);
        let services = self.board.all().into_iter().filter(|(name, _)| name.contains('.'));
        let services: Vec<Value> =
            services.map(|(name, standing)| json!({ "name": *name, "up": up(standing) })).collect();
        let served = self.current.served();
        let mut figures = json!({
            "version": version::VERSION,
            "gateway": self.identity.tell(),
            "now": unix_ms(),
            "uptime_seconds": self.since.elapsed().as_secs_f64(),
            "status": status(&self.board),
            "findings": self.board.findings().iter().map(finding).collect::<Vec<_>>(),
            "services": services,
            "nats": self.nats(&page, &view),
            "connections": page.number("gateway_connections", &[]),
            "watches": page.number("gateway_watches", &[]),
            // The lengths of the windows, actual and nominal: they are shorter after a start.
            "window": {
                "counts_ms": cluster::ms(view.counted),
                "counts_most_ms": cluster::ms(COUNTED),
                "quantiles_ms": cluster::ms(view.timed),
                "quantiles_most_ms": cluster::ms(TIMED),
            },
            "history": traffic::history(&self.windows, now),
            "methods": traffic::methods(served.catalog(), &page, &view),
            "routes": traffic::routes(served.catalog(), &page, &view, self.link.connected()),
            "index": {
                "orders": page.number("gateway_index_orders", &[]),
                "lag": page.number("gateway_index_lag", &[]),
            },
            "events": self.changes(),
        });
        let own = self.link.client().server_info().server_name;
        let around = self.around.watch(|state| {
            let mut around = surroundings(state, now);
            around["gateways"] = cluster::gateways(state, &self.identity.id, now).into();
            around["nodes"] = cluster::nodes(state, &own, now).into();
            around["monitored"] = self.monitored.into();
            around
        });
        if let (Value::Object(figures), Value::Object(around)) = (&mut figures, around) {
            figures.extend(around);
        }
        figures
    }

    fn nats(&self, page: &Exposition, view: &View) -> Value {
        let server = self.link.client().server_info();
        let connected = page.numbers("nats_connected").all(|(_, up)| up > 0.0);
        let reconnects: f64 = page.numbers("nats_reconnects_total").map(|(_, count)| count).sum();
        let recent: f64 = view.counts("nats_reconnects_total").map(|(_, count)| count).sum();
        json!({
            "url": &*self.url,
            "connected": connected,
            "reconnects": reconnects,
            "minute": { "reconnects": recent },
            "clock_skew_ms": self.link.clock().skew_ms(),
            "findings": self.guard.findings(),
            "server": server.server_name,
            "version": server.version,
        })
    }
}

/// A reason why calls cannot be served.
fn finding(finding: &Finding) -> Value {
    json!({ "reason": finding.reason, "message": finding.message })
}

/// The stats of everything around the gateway, with their ages.
fn surroundings(state: &State, now: Instant) -> Value {
    let dead = state.streams.get(order_streams::DEAD_LETTERS);
    let age = |at: Option<Instant>| at.map(|at| cluster::ms(now.duration_since(at)));
    json!({
        "workers": cluster::workers(state, now),
        "missing": cluster::missing(state, now),
        "streams": cluster::streams(state, now),
        "consumers": cluster::consumers(state, now),
        "dead_letters": state.letters.iter().map(letter).collect::<Vec<_>>(),
        "dead_letter_count": dead.map(|dead| dead.stream.messages),
        "dead_letters_ms": age(dead.map(|dead| dead.read)),
        "surveyed_ms": age(state.roster.looked()),
        "gateways_ms": age(state.gateways.looked()),
        "looked_ms": age(state.looked),
        "stale_ms": cluster::ms(STALE),
        "polled": state.current(now),
    })
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

fn letter(letter: &DeadLetter) -> Value {
    let time = letter.at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp { seconds: i64::try_from(time.as_secs()).unwrap_or(0), nanos: 0 };
    json!({
        "id": letter.id,
        "type": kind(&letter.subject),
        "sequence": letter.sequence,
        "time": time,
    })
}

/// The event type of a subject; the rest of the subject names the order.
fn kind(subject: &str) -> &str {
    let known = ["order_created", "order_status_updated"];
    subject.split('.').find_map(|token| known.into_iter().find(|kind| *kind == token)).unwrap_or("other")
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a service is up; none if that is not known.
fn up(standing: Standing) -> Option<bool> {
    (standing != Standing::Unknown).then_some(standing == Standing::Up)
}
