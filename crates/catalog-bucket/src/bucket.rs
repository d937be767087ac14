//! A bucket: its name and its two stores. Must not read or write.

use nats::{Connection, Store, StoreError};

use crate::error::BucketError;
use crate::name::BucketName;

/// A bucket of contracts. Clones share its connection.
#[derive(Clone)]
pub struct Bucket {
    pub(crate) name: BucketName,
    pub(crate) pointers: Store,
    pub(crate) objects: Store,
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

    /// The error of a store: of this bucket, if it is missing.
    pub(crate) fn told(&self, error: StoreError) -> BucketError {
        BucketError::of(self.name, error)
    }
}
