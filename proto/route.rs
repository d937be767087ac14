//! Routes: which NATS subject answers which rpc, and how a payload changes on the way. Made from the `route` options
//! in the protos at build time; nothing here is written by hand.

use std::time::Duration;

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What most payloads fit into, in bytes.
const SPACE: usize = 512;
/// Characters of what a mismatch says.
const WORDS: usize = 512;

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
    /// Whether a request, in its protobuf encoding, may be sent again as it is.
    pub repeats: fn(&[u8]) -> bool,
    /// From the protobuf encoding of a request to its payload on NATS.
    pub request: fn(&[u8]) -> Result<Vec<u8>, Mismatch>,
    /// From a reply's payload on NATS to its protobuf encoding.
    pub reply: fn(&[u8]) -> Result<Vec<u8>, Mismatch>,
}

/// An rpc that clients may call.
#[derive(Debug, Clone, Copy)]
pub struct Rpc {
    /// Its full name: `service/rpc`.
    pub name: &'static str,
    /// Its path in HTTP/2.
    pub path: &'static str,
    /// Whether its answer is a stream.
    pub streams: bool,
}

/// A request that clients send.
pub trait Repeat {
    /// Whether it does no more when it is sent twice than when it is sent once: by its rpc's `idempotency_level`, and
    /// where it can have a `request_id`, only if it has one.
    fn repeatable(&self) -> bool;
}

/// A request message that has a route, with the reply that belongs to it.
pub trait Routed: Message + Default + Serialize + DeserializeOwned + Repeat {
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
pub struct Mismatch {
    /// Where, as in `items[3].quantity`; empty where it is no JSON or protobuf at all.
    pub path: String,
    /// What is wrong there.
    pub why: String,
}

impl Mismatch {
    fn whole(error: &impl std::fmt::Display) -> Mismatch {
        Mismatch { path: String::new(), why: short(&error.to_string()) }
    }

    /// The same mismatch inside a field that is the payload. Of the payload as a whole it stays.
    fn under(self, field: &str) -> Mismatch {
        let path = match self.path.as_str() {
            "" => String::new(),
            path if path.starts_with('[') => format!("{field}{path}"),
            path => format!("{field}.{path}"),
        };
        Mismatch { path, why: self.why }
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() { f.write_str(&self.why) } else { write!(f, "{}: {}", self.path, self.why) }
    }
}

impl std::error::Error for Mismatch {}

impl Route {
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

fn repeats<R: Routed>(bytes: &[u8]) -> bool {
    from_proto::<R>(bytes).is_ok_and(|request| request.repeatable())
}

fn recode_reply<R: Routed>(bytes: &[u8]) -> Result<Vec<u8>, Mismatch> {
    to_proto(&R::reply_from_payload(bytes)?)
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, Mismatch> {
    let mut bytes = Vec::with_capacity(SPACE);
    serde_json::to_writer(&mut bytes, value).map_err(|error| Mismatch::whole(&error))?;
    Ok(bytes)
}

/// The text is checked once, as a whole: of a slice, the library checks each of its strings.
fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Mismatch> {
    let text = std::str::from_utf8(bytes).map_err(|error| Mismatch::whole(&error))?;
    serde_json::from_str(text).map_err(|error| locate::<T>(bytes).unwrap_or_else(|| Mismatch::whole(&error)))
}

/// Where a payload does not fit. Read a second time, because following the path costs time and few do not fit.
fn locate<T: DeserializeOwned>(bytes: &[u8]) -> Option<Mismatch> {
    let error =
        serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(bytes)).err()?;
    let (path, error) = (error.path().to_string(), error.inner());
    if !error.is_data() {
        return None;
    }
    // The generated code tries a number and a text, and says so in the words of its library.
    let untold = error.to_string().contains("untagged");
    let why = if untold { "is not of its type, or out of its range".to_owned() } else { error.to_string() };
    Some(Mismatch { path: if path == "." { String::new() } else { short(&path) }, why: short(&why) })
}

/// What a mismatch says goes to logs, and may have the payload's own words in it.
fn short(text: &str) -> String {
    text.chars().take(WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

// Both sides of an encoding have the same shape, so that the generated code need not tell them apart.
#[allow(clippy::unnecessary_wraps)]
fn to_proto<M: Message>(message: &M) -> Result<Vec<u8>, Mismatch> {
    Ok(message.encode_to_vec())
}

fn from_proto<M: Message + Default>(bytes: &[u8]) -> Result<M, Mismatch> {
    M::decode(bytes).map_err(|error| Mismatch::whole(&error))
}

include!(concat!(env!("OUT_DIR"), "/routes.rs"));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::v1::{AdjustStockRequest, ListReservationsRequest};
    use crate::orders::v1::{CreateOrderRequest, GetOrderRequest, UpdateOrderStatusRequest};

    #[test]
    fn a_request_may_be_sent_again_as_its_level_says_and_only_under_its_id_where_it_can_have_one() {
        let (mut order, mut adjustment) = (CreateOrderRequest::default(), AdjustStockRequest::default());
        assert!(!order.repeatable() && !adjustment.repeatable());
        (order.request_id, adjustment.request_id) = ("r-1".into(), "r-1".into());
        assert!(order.repeatable() && adjustment.repeatable());
        assert!(GetOrderRequest::default().repeatable() && UpdateOrderStatusRequest::default().repeatable());
        assert!((ADJUST_STOCK.repeats)(&adjustment.encode_to_vec()));
        for strange in [&b""[..], b"\xff"] {
            assert!(!(ADJUST_STOCK.repeats)(strange));
        }
    }

    #[test]
    fn a_mismatch_repeats_little_of_a_payload_and_breaks_no_line() {
        let of = |phase: &str| {
            let payload = serde_json::json!({"reservations": [{"phase": phase}]}).to_string();
            let mismatch = ListReservationsRequest::reply_from_payload(payload.as_bytes()).unwrap_err();
            assert_eq!(mismatch.path, "reservations[0].phase");
            mismatch.to_string()
        };
        assert!(of("NO_PHASE").contains("NO_PHASE"));
        assert!(!of("NO\nPHASE\u{1b}[2J").contains(char::is_control));
        assert!(of(&"x".repeat(1 << 20)).len() < 1_024);
    }
}
