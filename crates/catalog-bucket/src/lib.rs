//! Contracts on NATS. Descriptor sets lie in an object store, each under its digest, and never change. A key of the
//! key-value bucket of the same name, `active/<name>`, points at one, and is changed by compare-and-set. Must not know
//! what a set has: that is the catalog's.
//!
//! Nothing that is read is trusted: a set is what its digest says, within a size, or it is an error.
//!
//! ```no_run
//! use catalog_bucket::{Bucket, BucketError, BucketName, Pointer};
//! use tokio::time::Instant;
//!
//! /// Makes this set the active one of a name, unless somebody else changes it meanwhile.
//! async fn push(bucket: &Bucket, name: &str, set: &[u8], deadline: Instant) -> Result<u64, BucketError> {
//!     let before = bucket.slot(name, deadline).await?;
//!     let digest = bucket.store(set, deadline).await?;
//!     let pointer = Pointer { digest, who: "ann".to_owned(), size: set.len() as u64 };
//!     bucket.point(name, &pointer, before.revision, deadline).await
//! }
//! ```

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod active;
mod bucket;
mod digest;
mod error;
mod name;
mod objects;
mod pointer;
mod streams;

pub use active::{ActiveSet, Mark, SETS};
pub use bucket::Bucket;
pub use digest::Digest;
pub use error::BucketError;
pub use name::{BucketName, is_name};
pub use objects::SET;
pub use pointer::{Change, NAMES, Pointer, Slot, Target};
pub use streams::{HISTORY, create};
