//! What both services say about themselves: `log` lines, `figure`s on a `page` for Prometheus, and `trace`s over OTLP.
//! Must never know what the services do.

pub mod figure;
mod limit;
pub mod log;
pub mod page;
mod quota;
pub mod rendering;
pub mod trace;

pub use figure::{Count, Spread};
pub use page::{Book, Page, Source};
pub use quota::Quota;
pub use rendering::Rendering;
pub use trace::{Kind, Span, Tracer};
