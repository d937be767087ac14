//! Sets in the object store, in the layout of NATS object stores: contents in chunks, and metadata that says which. Must
//! not know names.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use nats::{Expect, StoreError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::digest::Digest;
use crate::error::BucketError;
use crate::name::is_name;

/// The largest set, in bytes.
pub const SET: usize = 4 << 20;
/// Bytes of a chunk, as object stores have them by default: an answer with one is far below NATS' maximum payload.
const CHUNK: usize = 128 << 10;
/// How often a write is tried again whose outcome is unknown, or that another writer of the same set overtook.
const TRIES: usize = 8;
/// The least bytes of a part on the average: a set in smaller ones takes too many requests to read.
const LEAST: usize = 16 << 10;

/// The metadata of an object, as much as is needed.
#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    name: String,
    bucket: String,
    nuid: String,
    size: u64,
    chunks: u64,
    digest: String,
    #[serde(default)]
    deleted: bool,
}

/// What is there of a set.
enum Contents {
    /// All of it, in so many chunks.
    Whole(u64),
    /// The next chunk begins here, and follows this sequence.
    Until { offset: usize, sequence: u64 },
}

impl Bucket {
    /// The set of this digest.
    ///
    /// # Errors
    /// [`BucketError::NoSet`]; [`BucketError::Damaged`] if it is too large, not whole or not of this digest; or why it
    /// could not be read.
    pub async fn set(&self, digest: &Digest, deadline: Instant) -> Result<Vec<u8>, BucketError> {
        let damaged = |why: String| BucketError::Damaged { what: format!("the set {digest}"), why };
        let subject = self.metadata(digest);
        let found = self.objects.last(&subject, deadline).await.map_err(|error| self.told(error))?;
        let Some(found) = found else { return Err(BucketError::NoSet(*digest)) };
        let metadata: Metadata = serde_json::from_slice(&found.payload)
            .map_err(|error| damaged(format!("its metadata cannot be read: {error}")))?;
        if metadata.deleted {
            return Err(BucketError::NoSet(*digest));
        }
        let size = usize::try_from(metadata.size).unwrap_or(usize::MAX);
        if size > SET {
            return Err(damaged(format!("it has {size} bytes, more than {} MiB", SET >> 20)));
        }
        if !is_name(&metadata.nuid) {
            return Err(damaged("its metadata names no contents".to_owned()));
        }
        let contents = self.name.contents(&metadata.nuid);
        let (mut set, mut from, mut chunks) = (Vec::new(), 1, 0);
        while set.len() < size {
            let chunk = self.objects.next(&contents, from, deadline).await;
            let chunk = chunk.map_err(|error| self.told(error))?.filter(|chunk| !chunk.payload.is_empty());
            let Some(chunk) = chunk else {
                return Err(damaged(format!("it has {} of {size} bytes", set.len())));
            };
            set.extend_from_slice(&chunk.payload);
            from = chunk.sequence + 1;
            chunks += 1;
            if chunks > size / LEAST + 2 {
                return Err(damaged("it is in too many parts".to_owned()));
            }
        }
        if set.len() != size || Digest::of(&set) != *digest {
            return Err(damaged("its contents have another digest: they are not what was pushed".to_owned()));
        }
        Ok(set)
    }

    /// Stores a set, if it is not there yet, and returns its digest. Writers of the same set may meet: what each has
    /// stored is used by the others, and what was left unfinished is finished.
    ///
    /// # Errors
    /// Not stored, or not as a whole, so that nothing can point at it: [`BucketError::TooMuch`]; [`BucketError::Damaged`]
    /// if what is there under its digest is something else; or why it could not be written. It may be repeated.
    pub async fn store(&self, set: &[u8], deadline: Instant) -> Result<Digest, BucketError> {
        let digest = Digest::of(set);
        if set.len() > SET {
            let why = format!("a set has at most {} MiB, and this one has {} bytes", SET >> 20, set.len());
            return Err(BucketError::TooMuch { bucket: self.name, why });
        }
        let mut last = None;
        for _ in 0..TRIES {
            match self.set(&digest, deadline).await {
                Err(BucketError::NoSet(_)) => {}
                found => return found.map(|_| digest),
            }
            match self.write(&digest, set, deadline).await {
                Ok(()) => return Ok(digest),
                // Another writer was first, or this one a moment ago: look again.
                Err(BucketError::Store(
                    _,
                    open @ (StoreError::Conflict { .. } | StoreError::Undetermined(_)),
                )) => {
                    last = Some(open);
                }
                Err(error) => return Err(error),
            }
        }
        let unknown = || StoreError::Unavailable("other writers do not end".to_owned());
        Err(BucketError::Store(self.name, last.unwrap_or_else(unknown)))
    }

    /// Writes what is missing of a set: chunks, each behind the one before it, and the metadata.
    async fn write(&self, digest: &Digest, set: &[u8], deadline: Instant) -> Result<(), BucketError> {
        let id = digest.to_string();
        let contents = self.name.contents(&id);
        let chunks = loop {
            match self.stored(digest, &contents, set, deadline).await? {
                Contents::Whole(chunks) => break chunks,
                Contents::Until { offset, sequence } => {
                    let rest = set.get(offset..).unwrap_or_default().chunks(CHUNK);
                    let mut sequence = sequence;
                    for chunk in rest {
                        sequence = self.append(&contents, chunk.to_vec(), sequence, deadline).await?;
                    }
                }
            }
        };
        let metadata = Metadata {
            name: id.clone(),
            bucket: self.name.as_str().to_owned(),
            nuid: id,
            size: set.len() as u64,
            chunks,
            digest: digest.of_object(),
            deleted: false,
        };
        let (subject, text) = (self.metadata(digest), serde_json::to_vec(&metadata));
        let text =
            text.map_err(|error| BucketError::Damaged { what: subject.clone(), why: error.to_string() })?;
        let before = self.objects.last(&subject, deadline).await.map_err(|error| self.told(error))?;
        // A deleted object has metadata, too; any other is that of another writer, who was first.
        let is_deleted = |payload: &[u8]| {
            serde_json::from_slice::<Metadata>(payload).is_ok_and(|metadata| metadata.deleted)
        };
        let before = match before {
            None => 0,
            Some(message) if is_deleted(&message.payload) => message.sequence,
            Some(message) => {
                return Err(self.told(StoreError::Conflict { last: Some(message.sequence) }));
            }
        };
        self.append(&subject, text, before, deadline).await.map(drop)
    }

    /// What is there of the contents of a set.
    async fn stored(
        &self,
        digest: &Digest,
        contents: &str,
        set: &[u8],
        deadline: Instant,
    ) -> Result<Contents, BucketError> {
        let (mut offset, mut sequence, mut chunks) = (0_usize, 0, 0);
        while let Some(chunk) =
            self.objects.next(contents, sequence + 1, deadline).await.map_err(|error| self.told(error))?
        {
            let rest = set.get(offset..).unwrap_or_default();
            if chunk.payload.is_empty() || !rest.starts_with(&chunk.payload) {
                let why = "something else lies there: remove the object with the nats CLI, and push again"
                    .to_owned();
                return Err(BucketError::Damaged { what: format!("the set {digest}"), why });
            }
            (offset, sequence, chunks) = (offset + chunk.payload.len(), chunk.sequence, chunks + 1);
        }
        Ok(if offset == set.len() { Contents::Whole(chunks) } else { Contents::Until { offset, sequence } })
    }

    async fn append(
        &self,
        subject: &str,
        payload: Vec<u8>,
        sequence: u64,
        deadline: Instant,
    ) -> Result<u64, BucketError> {
        let expect = Expect::LastOf { filter: subject, sequence };
        let stored =
            self.objects.append(subject, Default::default(), Bytes::from(payload), expect, deadline).await;
        stored.map_err(|error| self.told(error))
    }

    fn metadata(&self, digest: &Digest) -> String {
        self.name.metadata(&URL_SAFE.encode(digest.to_string()))
    }
}
