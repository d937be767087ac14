//! Why something of a bucket could not be read or written. Must do no I/O.

use nats::StoreError;

use crate::digest::Digest;
use crate::name::BucketName;

/// Why something of a bucket could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// There is no such bucket.
    #[error(
        "there is no bucket {0}: create it with `gateway catalog create --catalog-bucket {0}`, as the role provisioner"
    )]
    Missing(BucketName),
    /// Not written: the name points at something else than what was seen.
    #[error(
        "somebody else has changed {0:?} meanwhile, and nothing was changed now: look with `gateway catalog list`, and \
         push again"
    )]
    Moved(String),
    /// There is no set of this digest.
    #[error("there is no set {0} in the bucket: push it again")]
    NoSet(Digest),
    /// What a name points at cannot be used.
    #[error("{what}: {why}")]
    Damaged {
        /// The key, or the object.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is more in it than is read, or written.
    #[error("the bucket {bucket}: {why}")]
    TooMuch {
        /// The bucket.
        bucket: BucketName,
        /// What is too much.
        why: String,
    },
    /// Why nothing could be read or written.
    #[error("the bucket {0}: {1}")]
    Store(BucketName, #[source] StoreError),
}

impl BucketError {
    pub(crate) fn of(bucket: BucketName, error: StoreError) -> BucketError {
        match error {
            StoreError::Unusable(_) => BucketError::Missing(bucket),
            error => BucketError::Store(bucket, error),
        }
    }

    /// The same, about what a name points at.
    pub(crate) fn of_name(self, name: &str) -> BucketError {
        match self {
            BucketError::NoSet(digest) => BucketError::Damaged {
                what: format!("active/{name}"),
                why: format!("it points at {digest}, and there is no such set: push it again"),
            },
            BucketError::Damaged { what, why } => {
                BucketError::Damaged { what: format!("active/{name}: {what}"), why }
            }
            error => error,
        }
    }

    /// Whether it may work later without that anybody changes something.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            BucketError::Store(
                _,
                StoreError::Disconnected
                    | StoreError::Unavailable(_)
                    | StoreError::Down(_)
                    | StoreError::Undetermined(_)
            )
        )
    }
}
