//! Why a backup or a restore failed, with what an operator does about it where that is known. Must do no I/O.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::wait::{ATTEMPT, STEP};
use crate::error::{NO_LEADER, StoreError};

/// The server's text for a consumer that does not tell its state; `STREAM > CONSUMER` follows in quotes.
const CONSUMER: &str = "failed to get consumer state for '";

/// A stream's message count and sequences, as the server writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct State {
    /// Messages.
    pub messages: u64,
    /// The first sequence.
    #[serde(rename = "first_seq")]
    pub first: u64,
    /// The last sequence ever stored.
    #[serde(rename = "last_seq")]
    pub last: u64,
}

/// Why a backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// JetStream returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream did not say in time that it has a leader. Nothing was copied.
    #[error("the stream did not answer in {ATTEMPT:?} ({0}); {NO_LEADER}")]
    NoLeader(StoreError),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is not a usable backup.
    #[error("{} cannot be used: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A consumer did not tell its state, as its only replica is on a node that is down: the server copies a stream with
    /// all of its consumers or not at all.
    #[error("the consumer {0} is on a node that is down or does not answer, and is part of the copy")]
    ConsumerDown(String),
    /// The server aborted the transfer.
    #[error("the server aborted the transfer: {0}")]
    BrokenOff(String),
    /// Chunks were lost in transit.
    #[error("chunks were lost in transit; start again")]
    Lost,
    /// Nothing was received for a minute.
    #[error("the server sent nothing for {STEP:?}")]
    Silent,
    /// The restored stream differs from the backup.
    #[error("the stream now has {found:?}, but the backup has {saved:?}")]
    Differs {
        /// The state of the stream now.
        found: State,
        /// The state in the backup.
        saved: State,
    },
}

impl BackupError {
    /// Reads the text with which the server aborts a transfer.
    pub(super) fn aborted(text: String) -> BackupError {
        let named = text.split_once(CONSUMER).and_then(|(_, rest)| rest.split_once('\''));
        match named.and_then(|(names, _)| names.split_once(" > ")) {
            Some((_, consumer)) => BackupError::ConsumerDown(consumer.to_owned()),
            None => BackupError::BrokenOff(text),
        }
    }
}
