//! NATS for gateways and services: one connection with its own reply inbox, compare-and-set appends and leader reads on
//! JetStream, and checks of the streams that the caller wants. Must not know a stream by name, nor what a payload is
//! about.
//!
//! A [`Connection`] sends requests, a [`Store`] reads and writes one stream, [`StreamReader`] and [`PushReader`] read one in
//! order, and [`Streams`] finds or creates the streams that a process needs. Errors say what became of the work: of a
//! request, whether it may have been delivered; of an append, whether it was stored.

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod api;
pub mod backoff;
pub mod backup;
mod certificates;
mod check;
pub mod clock;
mod cluster;
mod connect;
pub mod credentials;
mod described;
mod durability;
pub mod encryption;
mod error;
pub mod failure;
pub mod guard;
mod handover;
pub mod header;
pub mod inspect;
mod live;
mod many;
mod monitor;
pub mod mux;
mod node;
pub mod nodes;
pub mod options;
pub mod outage;
mod pending;
pub mod permissions;
mod pool;
mod publish;
pub mod reader;
pub mod secret;
mod servers;
pub mod spec;
pub mod stats;
pub mod store;
pub mod streams;
mod subscriptions;

pub use clock::{Clock, WallClock};
pub use described::StreamDescription;
pub use error::NO_LEADER;
pub use guard::Guard;
pub use live::LiveSubscription;
pub use many::ManyReplies;
pub use monitor::Monitor;
pub use mux::{Connection, RequestError};
pub use options::Options;
pub use outage::Outage;
pub use permissions::PermissionViolation;
pub use publish::{Conditions, MESSAGE_ID, PendingAck, PubAck, StreamSettings};
pub use reader::{EntryShape, PushReader, StreamEntry, StreamReader};
pub use spec::{StreamMismatch, StreamSpec};
pub use stats::JetStreamStats;
pub use store::{Expect, Store, StoreError};
pub use streams::Streams;
pub use subscriptions::SubscriptionError;
