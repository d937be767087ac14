//! The ledger of stock on JetStream, as the rest of the worker sees it: commands go in, answers come out once they
//! are committed; the stock can be read as far as it is committed.

mod answer;
mod feed;
mod figures;
mod fill;
mod keeper;
mod pipe;
mod replica;
mod request;
mod snapshots;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use contract::{Delivered, Failure, Reason};
use link::{Clock, Guard, Link, Store, StoreError, streams};
use telemetry::Span;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::stock::{Amounts, Command, Contradiction, Refusal, Stock};
use crate::waits::{OPEN, PIECE};
pub use answer::Answer;
use feed::Feed;
use figures::Figures;
use fill::Fill;
use keeper::Keeper;
use replica::Replica;
use request::Request;
use snapshots::Snapshots;
use writer::Writer;

/// Commands that may wait for the writer; the next one is refused at once.
const QUEUE: usize = 8_192;

/// How the ledger is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Entries after which a snapshot is made.
    pub snapshot_every: u64,
    /// Commands that are decided together at most.
    pub batch: usize,
    /// How much the stock may come to hold.
    pub bounds: Amounts,
}

/// A handle on the ledger; clones share it.
#[derive(Clone)]
pub struct Ledger {
    commands: mpsc::Sender<Request>,
    stock: Arc<RwLock<Stock>>,
    loading: Arc<AtomicBool>,
    ended: watch::Receiver<Option<Arc<Broken>>>,
    figures: Arc<Figures>,
    clock: Arc<Clock>,
    guard: Guard,
    bounds: Amounts,
    /// What is submitted over this handle is done for the call with this span.
    span: Span,
}

/// Why a command has no answer.
#[derive(Debug, Clone)]
pub enum Denial {
    /// The rules say no.
    Refused(Refusal),
    /// It could not be done, or nobody knows whether it was.
    Failed(Failure),
}

/// Why a ledger cannot be used, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The storage.
    #[error("the ledger cannot be read: {0}")]
    Store(#[from] StoreError),
    /// Entries are gone that no snapshot has.
    #[error(
        "the ledger begins at {first}, after the newest snapshot at {snapshot}: entries between them are lost"
    )]
    Hole {
        /// The first entry.
        first: u64,
        /// The snapshot; 0 for none.
        snapshot: u64,
    },
    /// The snapshots.
    #[error("the snapshots cannot be read: {0}")]
    Snapshots(String),
    /// The ledger ends before what is known of it: its end was lost, or it was made anew.
    #[error(
        "the ledger ends at {last}, before the {known} that is known: its end was lost, or it was made anew"
    )]
    Behind {
        /// Its last entry.
        last: u64,
        /// The last entry that is known.
        known: u64,
    },
    /// Somebody made another.
    #[error(
        "the stream INVENTORY was removed and made anew: what this worker knows of it is worth nothing; start it again"
    )]
    Replaced,
    /// A fault of ours.
    #[error("the writer panicked: {0}")]
    Panicked(String),
    /// An entry is not ours, or from a newer version.
    #[error("the ledger's entry {sequence} cannot be read: {why}")]
    Unreadable {
        /// The entry.
        sequence: u64,
        /// Why not.
        why: String,
    },
    /// An entry does not fit.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// It took too long.
    #[error("the ledger could not be read in time")]
    Slow,
}

impl Ledger {
    /// Loads the newest snapshot, replays what came after it, and starts the writer. Returns once the stock includes
    /// every entry that was there at the start.
    pub async fn open(link: Link, settings: Settings) -> Result<Ledger, Broken> {
        let (begun, furthest) = (Instant::now(), OnceLock::<Arc<AtomicU64>>::new());
        let opening = async {
            let (guard, clock) = (Guard::default(), link.clock().clone());
            // What is kept in the ledger is compared with the ledger's own time alone.
            clock.follow(streams::INVENTORY);
            let store = Store::new(link.clone(), streams::INVENTORY).guarded(guard.clone());
            let snapshots = Snapshots::open(&link).await.map_err(Broken::Snapshots)?;
            let _ = furthest.set(snapshots.furthest());
            let (stock, worker) = (Arc::new(RwLock::new(Stock::default())), Uuid::new_v4());
            let (loading, figures) = (Arc::new(AtomicBool::new(true)), Arc::new(Figures::new()));
            let keeper =
                Keeper::new(snapshots.clone(), stock.clone(), settings.snapshot_every, figures.clone());
            let mut replica =
                Replica::new(store, snapshots, stock.clone(), worker, loading.clone(), figures.clone());
            replica.load().await?;
            let (commands, inbox) = mpsc::channel(QUEUE);
            let writer = Writer {
                replica,
                keeper,
                stock: stock.clone(),
                inbox,
                together: settings.batch,
                worker,
                batch: 0,
                figures: figures.clone(),
                bounds: settings.bounds,
                fill: Fill::default(),
            };
            let (end, ended) = watch::channel(None);
            tokio::spawn(async move {
                let broken = match tokio::spawn(writer.run()).await {
                    Ok(Ok(())) => return,
                    Ok(Err(broken)) => broken,
                    Err(error) => Broken::Panicked(error.to_string()),
                };
                tracing::error!(error = %broken, "the ledger cannot go on");
                let _ = end.send(Some(Arc::new(broken)));
            });
            let (bounds, span) = (settings.bounds, Span::default());
            Ok(Ledger { commands, stock, loading, ended, figures, clock, guard, bounds, span })
        };
        let mut opening = Box::pin(opening);
        loop {
            let pieces = furthest.get().map_or(0, |pieces| pieces.load(Ordering::Relaxed));
            // A large snapshot has more time, in which it has to come further.
            let until = begun + OPEN + PIECE.saturating_mul(u32::try_from(pieces).unwrap_or(u32::MAX));
            if Instant::now() >= until {
                return Err(Broken::Slow);
            }
            if let Ok(opened) = tokio::time::timeout_at(until, &mut opening).await {
                return opened;
            }
        }
    }

    /// The stock as far as it is committed. To be held for moments only, and never across an await.
    pub fn stock(&self) -> RwLockReadGuard<'_, Stock> {
        // The writer leaves the stock whole: an entry is checked before it is taken.
        self.stock.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of day for whatever is kept in the ledger, or compared with what is.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How much the stock may come to hold.
    pub fn bounds(&self) -> Amounts {
        self.bounds
    }

    /// Whether the streams are as they have to be: else nothing is written.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The same ledger, for work under this span.
    #[must_use]
    pub fn under(&self, span: &Span) -> Ledger {
        Ledger { span: span.clone(), ..self.clone() }
    }

    /// Has a command decided and committed. The answer comes after the commit of whatever it depends on.
    pub async fn submit(&self, command: Command, deadline: Instant) -> Result<Answer, Denial> {
        let may = match command {
            Command::CatchUp => self.guard.may_read(streams::INVENTORY),
            _ => self.guard.may_write(streams::INVENTORY),
        };
        may.map_err(|error| Denial::Failed(link::failure::of_store(&error)))?;
        let (request, progress, answered) = Request::new(command, deadline, &self.span);
        self.commands.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Denial::Failed(overloaded()),
            mpsc::error::TrySendError::Closed(_) => Denial::Failed(closed()),
        })?;
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Denial::Failed(closed())),
            Err(_) if progress.withdraw() => Err(Denial::Failed(writer::too_late())),
            Err(_) => Err(Denial::Failed(
                Failure::new(Reason::OutcomeUnknown, "the ledger did not answer in time")
                    .delivered(Delivered::Unknown),
            )),
        }
    }

    /// Waits until the stock includes everything that was committed before the call.
    pub async fn catch_up(&self, deadline: Instant) -> Result<(), Failure> {
        match self.submit(Command::CatchUp, deadline).await {
            Ok(_) => Ok(()),
            Err(Denial::Failed(failure))
                if [Reason::OutcomeUnknown, Reason::Timeout].iter().any(|r| failure.is(*r)) =>
            {
                Err(link::failure::of_store(&StoreError::Unavailable("no answer in time".to_owned())))
            }
            Err(Denial::Failed(failure)) => Err(failure),
            Err(Denial::Refused(_)) => Err(Failure::new(Reason::Internal, "a look at the stock was refused")),
        }
    }

    /// Returns when the ledger cannot go on, with the reason.
    pub async fn broken(&self) -> Arc<Broken> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(broken) => broken.clone().unwrap_or_else(|| Arc::new(Broken::Slow)),
            // The writer ends without a reason only when every handle is gone; nobody waits here then.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether it takes commands: the writer runs, and has loaded what it needs.
    pub fn ready(&self) -> bool {
        !self.commands.is_closed() && !self.loading.load(Ordering::Acquire)
    }
}

fn overloaded() -> Failure {
    Failure::overloaded("the ledger", &format!("{QUEUE} waiting commands"), link::failure::RETRY)
}

fn closed() -> Failure {
    Failure::new(Reason::StorageUnavailable, "this worker's ledger has stopped")
        .delivered(Delivered::Unknown)
        .retry_after(link::failure::RETRY)
}
