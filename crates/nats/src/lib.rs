//! NATS for the gateway and the inventory workers: one connection with its own reply inbox, compare-and-set appends and
//! leader reads on JetStream, and the streams. Must not depend on orders or stock.

mod api;
pub mod backoff;
pub mod backup;
mod certificates;
mod check;
pub mod clock;
mod cluster;
mod connect;
pub mod credentials;
pub mod encryption;
mod error;
pub mod failure;
pub mod guard;
pub mod header;
mod monitor;
pub mod mux;
mod node;
pub mod nodes;
pub mod options;
pub mod outage;
mod pending;
pub mod permissions;
mod pool;
pub mod secret;
mod servers;
pub mod spec;
pub mod stats;
pub mod store;
pub mod streams;

pub use clock::{Clock, WallClock};
pub use guard::Guard;
pub use mux::{Connection, RequestError};
pub use options::Options;
pub use outage::Outage;
pub use permissions::PermissionViolation;
pub use spec::{StreamMismatch, StreamSpec};
pub use stats::JetStreamStats;
pub use store::{Expect, Store, StoreError};
pub use streams::Streams;
