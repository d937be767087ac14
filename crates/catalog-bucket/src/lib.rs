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

mod digest;
mod error;
mod name;
mod objects;
mod pointer;
mod streams;

use nats::{Connection, Store};
use tokio::time::Instant;

pub use digest::Digest;
pub use error::BucketError;
pub use name::{BucketName, is_name};
pub use objects::SET;
pub use pointer::{Change, Pointer, Slot, Target};
pub use streams::{HISTORY, create};

/// The most names of a bucket.
pub const NAMES: usize = 100;
/// The most bytes of all sets of a bucket together that are read at once.
pub const SETS: usize = 32 << 20;

/// A bucket of contracts. Clones share its connection.
#[derive(Clone)]
pub struct Bucket {
    name: BucketName,
    pointers: Store,
    objects: Store,
}

/// The state of all pointers of a bucket: another state is another mark. `None`: nothing was ever written.
pub type Mark = Option<(u64, i128)>;

/// A set that a name points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveSet {
    /// The name.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// The encoded `FileDescriptorSet`; it has this digest.
    pub set: Vec<u8>,
}

impl Bucket {
    /// The bucket of this name. Nothing is read yet.
    pub fn new(link: Connection, name: BucketName) -> Bucket {
        let (pointers, objects) = (name.pointers(), name.objects());
        Bucket { name, pointers: Store::new(link.clone(), pointers), objects: Store::new(link, objects) }
    }

    /// Its name.
    pub fn name(&self) -> BucketName {
        self.name
    }

    /// The state of its pointers, read from the leader: one small request.
    ///
    /// # Errors
    /// [`BucketError::Missing`], or why it could not be read.
    pub async fn mark(&self, deadline: Instant) -> Result<Mark, BucketError> {
        let last = self.pointers.last(&self.name.keys(), deadline).await;
        let last = last.map_err(|error| self.told(error))?;
        Ok(last.map(|message| (message.sequence, message.time.unix_timestamp_nanos())))
    }

    /// The sets that its names point at, by name.
    ///
    /// # Errors
    /// The first pointer or set that is damaged; [`BucketError::Missing`]; more names, or bytes, than a gateway reads; or
    /// why it could not be read.
    pub async fn active(&self, deadline: Instant) -> Result<Vec<ActiveSet>, BucketError> {
        let (mut sets, mut size) = (Vec::new(), 0_usize);
        for name in self.names(deadline).await? {
            let Slot { target: Some(target), .. } = self.slot(&name, deadline).await? else { continue };
            let pointer = target.pointer(&name)?;
            let set = self.set(&pointer.digest, deadline).await;
            let set = set.map_err(|error| error.of_name(&name))?;
            size = size.saturating_add(set.len());
            if size > SETS {
                let why = format!("its active sets have more than {} MiB together", SETS >> 20);
                return Err(BucketError::TooMuch { bucket: self.name, why });
            }
            sets.push(ActiveSet { name, digest: pointer.digest, set });
        }
        Ok(sets)
    }

    /// The error of a store: of this bucket, if it is missing.
    fn told(&self, error: nats::StoreError) -> BucketError {
        BucketError::of(self.name, error)
    }
}
