//! Routes: which NATS subject answers which rpc, and how a payload changes on the way. Made from the `route` options
//! in the protos at build time; nothing here is written by hand.

use std::time::Duration;

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The NATS side of one rpc.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The full name of the rpc's service, as in `inventory.v1.InventoryService`.
    pub service: &'static str,
    /// The rpc's name.
    pub rpc: &'static str,
    /// The rpc's path in HTTP/2: `/service/rpc`.
    pub path: &'static str,
    /// The subject that requests are published on.
    pub subject: &'static str,
    /// The queue group of the service's instances; empty for none.
    pub queue_group: &'static str,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many attempts may follow the first.
    pub retries: u32,
    /// Whether an attempt that may have been delivered may be repeated.
    pub repeatable: bool,
    /// Whether the gateway keeps this rpc to itself.
    pub internal: bool,
    /// Whether payloads are proto3 JSON; else they are the protobuf encoding.
    pub json: bool,
    /// From the protobuf encoding of a request to its payload on NATS.
    pub request: fn(&[u8]) -> Result<Vec<u8>, Mismatch>,
    /// From a reply's payload on NATS to its protobuf encoding.
    pub reply: fn(&[u8]) -> Result<Vec<u8>, Mismatch>,
}

/// A request message that has a route, with the reply that belongs to it.
pub trait Routed: Message + Default + Serialize + DeserializeOwned {
    /// The reply's message.
    type Reply: Message + Default + Serialize + DeserializeOwned;
    /// Where it goes.
    const ROUTE: &'static Route;

    /// The payload on NATS.
    fn to_payload(&self) -> Result<Vec<u8>, Mismatch>;

    /// The request of a payload that came over NATS.
    fn from_payload(bytes: &[u8]) -> Result<Self, Mismatch>;

    /// The payload of a reply.
    fn reply_to_payload(reply: &Self::Reply) -> Result<Vec<u8>, Mismatch> {
        if Self::ROUTE.json { to_json(reply) } else { to_proto(reply) }
    }

    /// The reply of a payload.
    fn reply_from_payload(bytes: &[u8]) -> Result<Self::Reply, Mismatch> {
        if Self::ROUTE.json { from_json(bytes) } else { from_proto(bytes) }
    }
}

/// A payload that does not fit its message.
#[derive(Debug)]
pub struct Mismatch(String);

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

impl Route {
    /// The route that serves this HTTP/2 path to clients.
    pub fn exposed(path: &str) -> Option<&'static Route> {
        ALL.iter().copied().find(|route| route.path == path && !route.internal)
    }

    /// The payloads' media type.
    pub fn content_type(&self) -> &'static str {
        if self.json { "application/json" } else { "application/protobuf" }
    }

    /// The time of all attempts together, where the caller sets no deadline.
    pub fn budget(&self) -> Duration {
        self.timeout * (self.retries + 1)
    }
}

fn recode_request<R: Routed>(bytes: &[u8]) -> Result<Vec<u8>, Mismatch> {
    from_proto::<R>(bytes)?.to_payload()
}

fn recode_reply<R: Routed>(bytes: &[u8]) -> Result<Vec<u8>, Mismatch> {
    to_proto(&R::reply_from_payload(bytes)?)
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, Mismatch> {
    serde_json::to_vec(value).map_err(|error| Mismatch(error.to_string()))
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Mismatch> {
    serde_json::from_slice(bytes).map_err(|error| Mismatch(error.to_string()))
}

// Both sides of an encoding have the same shape, so that the generated code need not tell them apart.
#[allow(clippy::unnecessary_wraps)]
fn to_proto<M: Message>(message: &M) -> Result<Vec<u8>, Mismatch> {
    Ok(message.encode_to_vec())
}

fn from_proto<M: Message + Default>(bytes: &[u8]) -> Result<M, Mismatch> {
    M::decode(bytes).map_err(|error| Mismatch(error.to_string()))
}

include!(concat!(env!("OUT_DIR"), "/routes.rs"));
