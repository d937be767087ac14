//! The contract: message types and their proto3 JSON, routes, wire headers, limits and failures.
//!
//! Only what both sides of the wire agree on: must not contain a runtime, sockets, clocks or domain rules.

#![allow(clippy::doc_markdown)]

#[cfg(test)]
mod agreement;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod header;
pub mod item;
pub mod limits;
mod number;
pub mod reason;
#[cfg(test)]
#[path = "../fuzz/replay.rs"]
mod replay;
pub mod route;
pub mod subject;

pub use item::Item;
pub use reason::OrderReason;
pub use route::Route;

/// The descriptor set of the whole contract, with its options and comments, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Orders.
pub mod orders {
    /// Version 1: messages and client.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/orders.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/orders.v1.serde.rs"));
        /// The rpcs of orders.v1 that have code: those without a route.
        pub mod server {
            include!(concat!(env!("OUT_DIR"), "/servers/orders.v1.rs"));
        }
    }
}

/// Inventory.
pub mod inventory {
    /// Version 1: messages and client.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/inventory.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/inventory.v1.serde.rs"));
    }
}
