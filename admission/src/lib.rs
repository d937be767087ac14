//! What stands before every gRPC service of both programs: which requests are calls, what they may hold while they are
//! read, how failures are told, and health. Must never know what a service does.

mod answer;
pub mod board;
pub mod body;
pub mod budget;
mod explain;
mod health;
pub mod layer;
mod open;
pub mod port;
mod pushback;
pub mod request;
mod status;

pub use answer::{Answer, Keep};
pub use board::Board;
pub use body::{Intake, Measured};
pub use budget::Budget;
pub use health::Checkup;
pub use layer::{Admission, Admitting};
pub use pushback::{answer, status};
pub use request::Arrival;
pub use status::{Cause, RESPONSE};
