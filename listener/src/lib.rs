//! TCP listeners with limits, for every port of both services: how many connections there may be, how long one may be
//! silent, how long a request may take, which hosts HTTP is served for, and whether the process has descriptors for all
//! of it. Must never know what is served.

mod accept;
mod activity;
pub mod descriptors;
mod guard;
mod host;
pub mod http1;
pub mod http2;
mod in_hand;
mod line;
mod patrol;
mod seats;
mod thread;
mod toll;

pub use accept::Acceptor;
pub use activity::{Activity, Over, Timeouts};
pub use guard::guarded;
pub use host::Hosts;
pub use in_hand::InHand;
pub use line::Line;
pub use seats::{Full, LEAVING, Seat, Seats};
pub use thread::Thread;
