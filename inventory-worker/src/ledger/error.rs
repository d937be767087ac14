//! Why the ledger did not execute a command, and why it cannot be used. Must not decide what is done about it.

use nats::StoreError;
use wire::Failure;

use crate::stock::{Contradiction, Refusal};

/// Why a command was not executed.
#[derive(Debug, Clone)]
pub enum Denial {
    /// The rules refused it.
    Refused(Refusal),
    /// It failed, or its outcome is unknown.
    Failed(Failure),
}

/// Why a ledger cannot be used, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The storage failed.
    #[error("the ledger cannot be read: {0}")]
    Store(#[from] StoreError),
    /// Entries are lost that no snapshot includes.
    #[error(
        "the ledger begins at {first}, after the newest snapshot at {snapshot}: entries between them are lost"
    )]
    Hole {
        /// The first entry.
        first: u64,
        /// The snapshot; 0 for none.
        snapshot: u64,
    },
    /// The snapshots cannot be read.
    #[error("the snapshots cannot be read: {0}")]
    Snapshots(String),
    /// The ledger ends before a known entry: its end was lost, or it was deleted and created again.
    #[error(
        "the ledger ends at {last}, before the known entry {known}: its end was lost, or it was created again"
    )]
    Behind {
        /// Its last entry.
        last: u64,
        /// The last entry that is known.
        known: u64,
    },
    /// The stream was deleted and created again.
    #[error(
        "the stream INVENTORY was deleted and created again: this worker's copy of it is invalid; restart the worker"
    )]
    Replaced,
    /// An internal error.
    #[error("the writer panicked: {0}")]
    Panicked(String),
    /// An entry was not written by a worker, or by a newer version.
    #[error("the ledger's entry {sequence} cannot be read: {why}")]
    Unreadable {
        /// The entry.
        sequence: u64,
        /// Why not.
        why: String,
    },
    /// An entry contradicts the stock.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// It took too long.
    #[error("the ledger could not be read in time")]
    Slow,
}
