//! Who this gateway is, for those who look at the console and for other gateways. Must never know a secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use pbjson_types::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bridge::presence::Presence;
use crate::edge::Board;
use crate::edge::board::GATEWAY;

/// The name that gateways have as a service on NATS.
pub(super) const SERVICE: &str = "gateway";
const DESCRIPTION: &str = "gRPC for the services behind";

/// Who this is.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) id: String,
    host: String,
    grpc: SocketAddr,
    http: SocketAddr,
    started: SystemTime,
}

impl Identity {
    pub(super) fn new(grpc: SocketAddr, http: SocketAddr) -> Identity {
        Identity {
            id: Uuid::new_v4().simple().to_string(),
            host: host(),
            grpc,
            http,
            started: SystemTime::now(),
        }
    }

    /// For the console.
    pub(super) fn tell(&self) -> Value {
        json!({
            "id": self.id,
            "host": self.host,
            "grpc": self.grpc.to_string(),
            "http": self.http.to_string(),
            "version": version::VERSION,
            "commit": version::COMMIT,
            "started_ms": self.started_ms(),
        })
    }

    /// For other gateways.
    pub(super) fn presence(&self, board: Board) -> Presence {
        let since = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let this = self.clone();
        Presence {
            name: SERVICE,
            id: self.id.clone(),
            version: version::VERSION,
            description: DESCRIPTION,
            started: Timestamp {
                seconds: i64::try_from(since.as_secs()).unwrap_or_default(),
                nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
            },
            metadata: Box::new(move || this.metadata(&board)),
        }
    }

    fn metadata(&self, board: &Board) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("host", self.host.clone()),
            ("grpc", self.grpc.to_string()),
            ("http", self.http.to_string()),
            ("commit", version::COMMIT.to_owned()),
            ("started_ms", self.started_ms().to_string()),
            ("status", status(board).to_owned()),
        ])
    }

    fn started_ms(&self) -> u64 {
        let since = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// How a gateway stands.
pub(super) fn status(board: &Board) -> &'static str {
    match (board.over(), board.up(GATEWAY) == Some(true)) {
        (true, _) => "DRAINING",
        (false, true) => "SERVING",
        (false, false) => "NOT_SERVING",
    }
}

/// The machine's name, in a pod the pod's. Not everywhere is there one to be read.
fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let told = told.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let told: String = told.trim().chars().take(100).collect();
    if told.is_empty() { "unknown".to_owned() } else { told }
}
