//! The NATS side that the gateway and the inventory workers share: one connection with an inbox of its own,
//! compare-and-set appends and leader reads on JetStream, and the streams themselves. Knows no order and no stock.

pub mod backup;
pub mod census;
mod certificates;
pub mod clock;
mod cluster;
pub mod credentials;
pub mod denied;
pub mod failure;
mod fit;
pub mod guard;
pub mod header;
pub mod inbox;
pub mod letters;
mod monitor;
mod node;
pub mod nodes;
pub mod options;
pub mod outage;
mod pool;
pub mod seal;
mod servers;
pub mod store;
pub mod streams;
mod waiting;

pub use census::Census;
pub use clock::{Clock, Wall};
pub use denied::Denied;
pub use guard::Guard;
pub use inbox::{Link, Trouble};
pub use letters::{Discarded, Letter, Letters};
pub use options::Options;
pub use outage::Outage;
pub use store::{Expect, Store, StoreError};
pub use streams::Streams;
