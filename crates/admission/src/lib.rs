//! The admission layer of every gRPC service of both programs: which requests are calls, how much memory they may hold,
//! how failures become statuses, and health. Must not depend on what a service does.

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod body;
pub mod budget;
mod health;
pub mod health_server;
pub mod layer;
mod library_errors;
mod open;
mod pushback;
pub mod registry;
pub mod request;
mod response;
mod status;
mod unfinished;
mod unsent;

pub use body::{MeasuredBody, RequestState};
pub use budget::MemoryBudget;
pub use health::HealthService;
pub use layer::{Admission, Admitting};
pub use pushback::{answer, status};
pub use registry::HealthRegistry;
pub use request::Arrival;
pub use response::{HeldUntilSent, ResponseBody};
pub use status::{Cause, RESPONSE, append};
