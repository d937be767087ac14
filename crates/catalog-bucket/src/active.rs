//! What is active in a bucket: the sets that its names point at, and whether that has changed. Must not write.

use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::digest::Digest;
use crate::error::BucketError;
use crate::pointer::Slot;

/// The most bytes of all sets of a bucket together that are read at once.
pub const SETS: usize = 32 << 20;

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
}
