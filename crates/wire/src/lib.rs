//! What a gateway and NATS services agree on, whatever the services do: failures and how they are written on NATS, names
//! of headers, the NestJS envelope. Must not depend on a contract, a runtime, a socket or a clock.

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod ascii;
pub mod failure;
pub mod header;
pub mod metadata;
pub mod nestjs;
pub mod reason;
pub mod status;
pub mod text;

pub use failure::{Delivered, Failure, FieldViolation};
pub use metadata::{Metadata, ResponseMetadata};
pub use reason::{ErrorReason, Reason};
