//! Routes: which NATS subject answers which rpc, and how payloads are converted. The routes are generated from the
//! `route` options in the protos at build time.

use std::time::Duration;

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Initial buffer in bytes; most payloads fit into it.
const SPACE: usize = 512;
/// The most characters of an error's texts.
const WORDS: usize = 512;

/// The NATS side of one rpc.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The full name of the rpc's service, such as `inventory.v1.InventoryService`.
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
    /// Whether only the gateway itself calls this rpc.
    pub internal: bool,
    /// Whether payloads are proto3 JSON; else they are the protobuf encoding.
    pub json: bool,
    /// Whether a request, in its protobuf encoding, may be sent again as it is.
    pub repeats: fn(&[u8]) -> bool,
    /// Converts the protobuf encoding of a request to its payload on NATS.
    pub request: fn(&[u8]) -> Result<Vec<u8>, CodecError>,
    /// Converts a reply's payload on NATS to its protobuf encoding.
    pub reply: fn(&[u8]) -> Result<Vec<u8>, CodecError>,
}

/// A request that clients send.
pub trait Repeat {
    /// Whether sending it twice has the same effect as sending it once: by its rpc's `idempotency_level`, and if it has
    /// a field `request_id`, only if that is set.
    fn repeatable(&self) -> bool;
}

/// A request message that has a route, with the reply that belongs to it.
pub trait Routed: Message + Default + Serialize + DeserializeOwned + Repeat {
    /// The reply's message.
    type Reply: Message + Default + Serialize + DeserializeOwned;
    /// Its route.
    const ROUTE: &'static Route;

    /// The payload on NATS.
    fn to_payload(&self) -> Result<Vec<u8>, CodecError>;

    /// The request in a payload from NATS.
    fn from_payload(bytes: &[u8]) -> Result<Self, CodecError>;

    /// The payload of a reply.
    fn reply_to_payload(reply: &Self::Reply) -> Result<Vec<u8>, CodecError> {
        if Self::ROUTE.json { to_json(reply) } else { to_proto(reply) }
    }

    /// The reply in a payload.
    fn reply_from_payload(bytes: &[u8]) -> Result<Self::Reply, CodecError> {
        if Self::ROUTE.json { from_json(bytes) } else { from_proto(bytes) }
    }
}

/// A payload that cannot be converted to or from its message.
#[derive(Debug)]
pub struct CodecError {
    /// Where, such as `items[3].quantity`; empty if it is not JSON or protobuf at all.
    pub path: String,
    /// What is wrong there.
    pub why: String,
}

impl CodecError {
    fn whole(error: &impl std::fmt::Display) -> CodecError {
        CodecError { path: String::new(), why: short(&error.to_string()) }
    }

    /// The same error within the field that is the payload. An error of the payload as a whole is unchanged.
    fn under(self, field: &str) -> CodecError {
        let path = match self.path.as_str() {
            "" => String::new(),
            path if path.starts_with('[') => format!("{field}{path}"),
            path => format!("{field}.{path}"),
        };
        CodecError { path, why: self.why }
    }
}

impl std::fmt::Display for CodecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() { f.write_str(&self.why) } else { write!(f, "{}: {}", self.path, self.why) }
    }
}

impl std::error::Error for CodecError {}

impl Route {
    /// The payloads' media type.
    pub fn content_type(&self) -> &'static str {
        if self.json { "application/json" } else { "application/protobuf" }
    }

    /// The time for all attempts together, if the caller sets no deadline.
    pub fn budget(&self) -> Duration {
        self.timeout * (self.retries + 1)
    }
}

fn recode_request<R: Routed>(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    from_proto::<R>(bytes)?.to_payload()
}

fn repeats<R: Routed>(bytes: &[u8]) -> bool {
    from_proto::<R>(bytes).is_ok_and(|request| request.repeatable())
}

fn recode_reply<R: Routed>(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    to_proto(&R::reply_from_payload(bytes)?)
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(SPACE);
    serde_json::to_writer(&mut bytes, value).map_err(|error| CodecError::whole(&error))?;
    Ok(bytes)
}

/// Validates UTF-8 once for the whole text: given a slice, the library validates each string.
fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let text = std::str::from_utf8(bytes).map_err(|error| CodecError::whole(&error))?;
    serde_json::from_str(text)
        .map_err(|error| locate::<T>(bytes).unwrap_or_else(|| CodecError::whole(&error)))
}

/// Where decoding fails. Decodes a second time, because tracking the path takes time and few payloads fail.
fn locate<T: DeserializeOwned>(bytes: &[u8]) -> Option<CodecError> {
    let error =
        serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(bytes)).err()?;
    let (path, error) = (error.path().to_string(), error.inner());
    if !error.is_data() {
        return None;
    }
    // The generated code tries a number and a string, and the library's message tells only that.
    let untold = error.to_string().contains("untagged");
    let why = if untold { "has the wrong type or is out of range".to_owned() } else { error.to_string() };
    Some(CodecError { path: if path == "." { String::new() } else { short(&path) }, why: short(&why) })
}

/// Shortens and cleans a text for logs, as it may contain parts of the payload.
fn short(text: &str) -> String {
    text.chars().take(WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

// Returns a `Result` as `to_json` does, so that the generated code need not tell them apart.
#[allow(clippy::unnecessary_wraps)]
fn to_proto<M: Message>(message: &M) -> Result<Vec<u8>, CodecError> {
    Ok(message.encode_to_vec())
}

fn from_proto<M: Message + Default>(bytes: &[u8]) -> Result<M, CodecError> {
    M::decode(bytes).map_err(|error| CodecError::whole(&error))
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
        assert!((INVENTORY_V1_INVENTORY_SERVICE_ADJUST_STOCK.repeats)(&adjustment.encode_to_vec()));
        for strange in [&b""[..], b"\xff"] {
            assert!(!(INVENTORY_V1_INVENTORY_SERVICE_ADJUST_STOCK.repeats)(strange));
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
