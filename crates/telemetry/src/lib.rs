//! Telemetry of both services: log lines, metrics for Prometheus, and traces over OTLP. Must not depend on what the
//! services do.

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod exposition;
mod limit;
pub mod log;
pub mod metrics;
mod quota;
pub mod rendering;
pub mod trace;

pub use exposition::{Exposition, Registry, Source};
pub use metrics::{Counter, Histogram};
pub use quota::LineQuota;
pub use rendering::Rendering;
pub use trace::{Span, SpanRole, Tracer};
