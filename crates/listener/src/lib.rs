//! TCP listeners with limits, for every port of both services: number of connections, idle time, request time, hosts
//! that HTTP is served for, and file descriptors. Must not depend on what is served.

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod accept;
mod activity;
mod credit;
pub mod descriptors;
mod frames;
mod host;
pub mod http1;
pub mod http2;
mod in_flight;
mod io;
mod limit;
mod restrict;
mod thread;

pub use accept::Acceptor;
pub use activity::{Activity, CloseReason, Timeouts};
pub use host::Hosts;
pub use io::LimitedIo;
pub use limit::{ConnectionLimit, ConnectionPermit, LEAVING, WhenFull};
pub use restrict::restrict_hosts;
pub use thread::Thread;
