//! The order system's side of the gateway: OrderService, which plugs into the gRPC port, and the commands for its
//! streams. Orders as values are in `order`, the service in `service`, its lists and watches in `feed`.

pub mod backup;
pub mod dead_letters;
pub mod feed;
pub mod order;
pub mod reconcile;
#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
pub mod served;
pub mod service;
mod share;
mod typed;
pub mod waits;

/// Explains a command's permission violation.
const OPERATORS: &str = "this command is for the role operator";
