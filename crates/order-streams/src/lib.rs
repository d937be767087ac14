//! The streams of the order system: names, subjects, configurations, the entries of ORDERS, and the dead letters.
//! Gateways and workers share them; must not depend on either.

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod dead_letters;
pub mod entry;
pub mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod order;
#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
pub mod status;

use async_nats::jetstream::stream::{Config, Republish};
use contract::{route, subject};
use nats::spec::{StreamMismatch, StreamSpec, durable};
use nats::{Connection, Guard, Streams};

pub use dead_letters::{DeadLetter, DeadLetters, Discarded};
pub use entry::{DamagedEntry, Entry, EntryDamage, EntryKind, EventKind, Last, Mark};
pub use event::Event;
pub use order::{Moment, Order, OrderBody};
pub use status::Status;

/// The stream of orders and their events.
pub const ORDERS: &str = "ORDERS";
/// The stock's ledger.
pub const INVENTORY: &str = "INVENTORY";
/// The ledger's snapshots: an object store's stream, created by us because the library's would allow direct reads.
pub const SNAPSHOTS: &str = "OBJ_inventory-snapshots";
/// The object store in `SNAPSHOTS`.
pub const SNAPSHOT_BUCKET: &str = "inventory-snapshots";
/// The prefix of snapshots' names; the ledger's sequence follows.
pub const SNAPSHOT_PREFIX: &str = "snapshot-";
/// Dead letters: events that could not be processed.
pub const DEAD_LETTERS: &str = "DEAD_LETTERS";

/// All streams.
pub const ALL: [&str; 4] = [ORDERS, INVENTORY, SNAPSHOTS, DEAD_LETTERS];

/// The subject of the ledger.
pub const LEDGER_SUBJECT: &str = "inventory.ledger";
/// The prefix of dead letters' subjects.
pub const DEAD_LETTER_PREFIX: &str = "dead_letters.orders";
/// The subject of the records of dead letters that were discarded, in the same stream.
pub const DISCARDED: &str = "dead_letters.discarded";

/// The streams, each with these replicas if it is created. `written`: those that the process writes to constantly.
pub fn specs(replicas: usize, written: &[&str]) -> Vec<StreamSpec> {
    let spec = |name, config| StreamSpec {
        name,
        config,
        required: [ORDERS, INVENTORY].contains(&name),
        written: written.contains(&name),
    };
    let durable = |name, subjects: &[&str]| durable(name, subjects, replicas);
    let orders = Config {
        description: Some("Orders: one event per change, the whole order in each".to_owned()),
        republish: Some(Republish {
            source: subject::EVENTS.to_owned(),
            destination: "{{wildcard(1)}}".to_owned(),
            headers_only: false,
        }),
        deny_delete: true,
        deny_purge: true,
        ..durable(ORDERS, &[subject::EVENTS, subject::TOMBSTONES])
    };
    let inventory = Config {
        description: Some("Stock: the ledger of facts".to_owned()),
        deny_delete: true,
        ..durable(INVENTORY, &[LEDGER_SUBJECT])
    };
    let snapshots = Config {
        description: Some("Stock: snapshots of the ledger".to_owned()),
        allow_rollup: true,
        ..durable(SNAPSHOTS, &["$O.inventory-snapshots.C.>", "$O.inventory-snapshots.M.>"])
    };
    let dead_letters = Config {
        description: Some("Order events that could not be processed".to_owned()),
        ..durable(DEAD_LETTERS, &["dead_letters.>"])
    };
    vec![
        spec(ORDERS, orders),
        spec(INVENTORY, inventory),
        spec(SNAPSHOTS, snapshots),
        spec(DEAD_LETTERS, dead_letters),
    ]
}

/// Finds the streams, creates missing ones if `make`, and checks them all.
///
/// # Errors
///
/// The first thing that is wrong with the server or a stream, as for [`Streams::open`]. Streams created before that stay.
pub async fn open(link: &Connection, replicas: usize, make: bool) -> Result<Streams, StreamMismatch> {
    let requests: Vec<&str> = route::ALL.iter().map(|route| route.subject).collect();
    Streams::open(link, &specs(replicas, &[]), &requests, make).await
}

/// The subjects of these streams, and of the events that ORDERS republishes: nobody else's requests go there.
pub const SUBJECTS: [&str; 6] = [
    subject::EVENTS,
    subject::TOMBSTONES,
    LEDGER_SUBJECT,
    "dead_letters.>",
    "order_created",
    "order_status_updated",
];

/// The streams as statistics count them: with each, the subject whose messages do not count. The records of discarded
/// dead letters do not.
pub fn counted() -> [(&'static str, Option<&'static str>); 4] {
    ALL.map(|name| (name, (name == DEAD_LETTERS).then_some(DISCARDED)))
}

/// The guard of a process that writes to these streams constantly.
pub fn guard(replicas: usize, written: &[&str]) -> Guard {
    Guard::new(specs(replicas, written))
}

/// Reads the number of a stream's replicas.
///
/// # Errors
/// If it is not 1, 3 or 5.
pub fn replicas(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(replicas @ (1 | 3 | 5)) => Ok(replicas),
        _ => Err("must be 1, 3 or 5".to_owned()),
    }
}
