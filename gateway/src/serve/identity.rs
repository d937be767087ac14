//! The identity of this gateway, for the console and for other gateways. Must not contain secrets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use pbjson_types::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use bridge::micro::MicroService;
use server::HealthRegistry;
use server::registry::GATEWAY;

/// The service name of gateways on NATS.
pub(super) const SERVICE: &str = "gateway";
const DESCRIPTION: &str = "gRPC gateway to NATS services";

/// The identity of a gateway.
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

    /// The identity as JSON, for the console.
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

    /// The service that answers discovery requests of other gateways.
    pub(super) fn presence(&self, board: HealthRegistry) -> MicroService {
        let since = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let this = self.clone();
        MicroService {
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

    fn metadata(&self, board: &HealthRegistry) -> BTreeMap<&'static str, String> {
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

/// The status of a gateway.
pub(super) fn status(board: &HealthRegistry) -> &'static str {
    match (board.over(), board.up(GATEWAY) == Some(true)) {
        (true, _) => "DRAINING",
        (false, true) => "SERVING",
        (false, false) => "NOT_SERVING",
    }
}

/// The host name, in a pod that of the pod; `unknown` if it cannot be read.
fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let told = told.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let told: String = told.trim().chars().take(100).collect();
    if told.is_empty() { "unknown".to_owned() } else { told }
}
