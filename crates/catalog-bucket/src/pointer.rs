//! Pointers: which set a name has, who changed it and when. Must not read sets.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use nats::{Expect, StoreError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::digest::Digest;
use crate::error::BucketError;
use crate::name::is_name;

/// The most names of a bucket.
pub const NAMES: usize = 100;
/// The most bytes of a pointer.
const LARGEST: usize = 1_024;
/// The most characters of who changed one.
const WHO: usize = 128;
/// How often a change is tried again whose outcome is unknown.
const TRIES: usize = 3;
/// The most changes of a name that are told: the newest.
const CHANGES: usize = 64;
/// The header of an entry that the nats CLI writes where a key is deleted or purged.
const OPERATION: &str = "KV-Operation";

/// What an entry of a key says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The set.
    pub digest: Digest,
    /// Who has pushed it, as they say themselves: at most 128 characters.
    pub who: String,
    /// The size of the set, in bytes.
    pub size: u64,
}

/// What a name points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A set.
    Set(Pointer),
    /// Nothing that can be read, and why.
    Damaged(String),
}

/// A name, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The revision of its key; 0 if it never had one.
    pub revision: u64,
    /// When it was changed, by the server's time of day.
    pub when: SystemTime,
    /// What it points at; none if there is none, or if it was deleted.
    pub target: Option<Target>,
}

/// A change of a name: what it pointed at from then on.
pub type Change = Slot;

impl Target {
    /// The pointer of a name, if it can be read.
    ///
    /// # Errors
    /// [`BucketError::Damaged`].
    pub fn pointer(self, name: &str) -> Result<Pointer, BucketError> {
        match self {
            Target::Set(pointer) => Ok(pointer),
            Target::Damaged(why) => Err(BucketError::Damaged { what: format!("active/{name}"), why }),
        }
    }

    fn read(payload: &[u8]) -> Target {
        if payload.len() > LARGEST {
            return Target::Damaged(format!("it has {} bytes, and is no pointer", payload.len()));
        }
        match serde_json::from_slice::<Pointer>(payload) {
            Ok(pointer) if is_who(&pointer.who) => Target::Set(pointer),
            Ok(_) => Target::Damaged("it does not say who wrote it".to_owned()),
            Err(error) => Target::Damaged(format!("it is no pointer: {error}")),
        }
    }
}

impl Bucket {
    /// The names that have a key, sorted; also those that were deleted.
    ///
    /// # Errors
    /// [`BucketError::Missing`]; [`BucketError::TooMuch`]; or why they could not be read.
    pub async fn names(&self, deadline: Instant) -> Result<Vec<String>, BucketError> {
        let subjects = self.pointers.subjects(&self.name.keys(), deadline).await;
        let prefix = self.name.key("");
        let subjects = subjects.map_err(|error| self.told(error))?;
        // Other keys are for other uses.
        let names = subjects.iter().filter_map(|key| key.strip_prefix(&prefix)).filter(|name| is_name(name));
        let mut names: Vec<_> = names.map(ToOwned::to_owned).collect();
        if names.len() > NAMES {
            let why = format!("it has {} names, and at most {NAMES} are read", names.len());
            return Err(BucketError::TooMuch { bucket: self.name, why });
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What a name points at, read from the leader.
    ///
    /// # Errors
    /// [`BucketError::Missing`], or why it could not be read.
    pub async fn slot(&self, name: &str, deadline: Instant) -> Result<Slot, BucketError> {
        let last = self.pointers.last(&self.name.key(name), deadline).await;
        Ok(last.map_err(|error| self.told(error))?.map_or_else(Slot::never, |message| Slot::of(&message)))
    }

    /// The changes of a name that are still known, oldest first.
    ///
    /// # Errors
    /// As for [`Bucket::slot`].
    pub async fn history(&self, name: &str, deadline: Instant) -> Result<Vec<Change>, BucketError> {
        let (key, mut changes, mut from) = (self.name.key(name), VecDeque::new(), 1);
        while let Some(message) =
            self.pointers.next(&key, from, deadline).await.map_err(|error| self.told(error))?
        {
            from = message.sequence + 1;
            if changes.len() == CHANGES {
                changes.pop_front();
            }
            changes.push_back(Slot::of(&message));
        }
        Ok(changes.into())
    }

    /// Makes a name point at a set, if its key still has this revision, and returns the new one.
    ///
    /// # Errors
    /// Not changed: [`BucketError::Moved`], if somebody else changed it, and [`BucketError::Missing`]. Others say whether
    /// it was.
    pub async fn point(
        &self,
        name: &str,
        pointer: &Pointer,
        revision: u64,
        deadline: Instant,
    ) -> Result<u64, BucketError> {
        let key = self.name.key(name);
        let who = pointer.who.clone();
        if !is_name(name) || !is_who(&who) {
            let why = format!(
                "a name has 1 to 64 characters of [A-Za-z0-9_-], and {WHO} are enough for who changed it"
            );
            return Err(BucketError::Damaged { what: format!("{name:?} of {who:?}"), why });
        }
        let text = serde_json::to_vec(pointer)
            .map_err(|error| BucketError::Damaged { what: key.clone(), why: error.to_string() })?;
        let mut tries = 0;
        loop {
            tries += 1;
            let expect = Expect::LastOf { filter: &key, sequence: revision };
            let payload = Bytes::from(text.clone());
            match self.pointers.append(&key, Default::default(), payload, expect, deadline).await {
                Err(StoreError::Undetermined(_)) if tries < TRIES => {}
                // An earlier try may have been stored.
                Err(StoreError::Conflict { .. }) => {
                    let now = self.slot(name, deadline).await?;
                    let ours = tries > 1 && now.target == Some(Target::Set(pointer.clone()));
                    return if ours { Ok(now.revision) } else { Err(BucketError::Moved(name.to_owned())) };
                }
                stored => return stored.map_err(|error| self.told(error)),
            }
        }
    }
}

impl Slot {
    fn never() -> Slot {
        Slot { revision: 0, when: SystemTime::UNIX_EPOCH, target: None }
    }

    fn of(message: &async_nats::jetstream::message::StreamMessage) -> Slot {
        let deleted = message.headers.get(OPERATION).is_some();
        let seconds = u64::try_from(message.time.unix_timestamp()).unwrap_or(0);
        Slot {
            revision: message.sequence,
            when: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            target: (!deleted).then(|| Target::read(&message.payload)),
        }
    }
}

/// Whether this says who changed something: a text that can be shown in a line.
fn is_who(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= WHO && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pointer_is_damaged_and_says_why() {
        let digest = Digest::of(b"");
        let good = format!(r#"{{"digest":"{digest}","who":"ann","size":0,"more":1}}"#);
        assert_eq!(
            Target::read(good.as_bytes()),
            Target::Set(Pointer { digest, who: "ann".to_owned(), size: 0 })
        );
        let long = good.replace("ann", &"x".repeat(129));
        let vast = good.replace("ann", &"x".repeat(1_024));
        let wrong =
            ["", "7", "{}", "\0", &good.replace("ann", ""), &good.replace("ann", "a\\n"), &long, &vast];
        for wrong in wrong.into_iter().chain([good.replace(&digest.to_string(), "../x").as_str()]) {
            assert!(matches!(Target::read(wrong.as_bytes()), Target::Damaged(_)), "{wrong}");
        }
    }
}
