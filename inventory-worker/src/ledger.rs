//! The ledger of stock on JetStream, as the rest of the worker sees it: a command is answered once it is committed, and
//! the stock can be read as far as it is committed.

mod decision;
mod error;
mod feed;
mod fill;
mod metrics;
mod pipe;
mod replica;
mod request;
mod snapshots;
mod snapshotter;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nats::{Clock, Connection, Guard, Store, StoreError};
use parking_lot::{RwLock, RwLockReadGuard};
use telemetry::{Exposition, Source, Span};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;
use wire::{Delivered, Failure, Reason};

use crate::stock::{Amounts, Command, Stock};
use crate::waits::{OPEN, PIECE};
pub use decision::Decision;
pub use error::{Denial, LedgerError};
use feed::Feed;
use fill::Fill;
use metrics::LedgerMetrics;
use replica::Replica;
use request::Request;
use snapshots::Snapshots;
use snapshotter::Snapshotter;
use writer::Writer;

/// Commands that may wait for the writer; the next one is refused at once.
const QUEUE: usize = 8_192;

/// How the ledger is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// The most commands of a batch.
    pub batch: usize,
    /// The bounds of what the stock keeps.
    pub bounds: Amounts,
    /// Replicas that a stream gets when it is created.
    pub replicas: usize,
}

/// A handle on the ledger; clones share it.
#[derive(Clone)]
pub struct Ledger {
    commands: mpsc::Sender<Request>,
    stock: Arc<RwLock<Stock>>,
    loading: Arc<AtomicBool>,
    ended: watch::Receiver<Option<Arc<LedgerError>>>,
    metrics: Arc<LedgerMetrics>,
    clock: Arc<Clock>,
    guard: Guard,
    bounds: Amounts,
    /// The span of the call for which this handle submits commands.
    span: Span,
}

impl Ledger {
    /// Loads the newest snapshot, replays what came after it, and starts the writer. Returns once the stock includes
    /// every entry that was there at the start.
    pub async fn open(link: Connection, settings: Settings) -> Result<Ledger, LedgerError> {
        let (begun, furthest) = (Instant::now(), OnceLock::<Arc<AtomicU64>>::new());
        let opening = async {
            let guard = order_streams::guard(settings.replicas, &[order_streams::INVENTORY]);
            let clock = link.clock().clone();
            // Times in the ledger are compared only with the ledger's own time.
            clock.follow(order_streams::INVENTORY);
            let store = Store::new(link.clone(), order_streams::INVENTORY).guarded(guard.clone());
            let snapshots = Snapshots::open(&link).await.map_err(LedgerError::Snapshots)?;
            let _ = furthest.set(snapshots.furthest());
            let (stock, worker) = (Arc::new(RwLock::new(Stock::default())), Uuid::new_v4());
            let (loading, metrics) = (Arc::new(AtomicBool::new(true)), Arc::new(LedgerMetrics::new()));
            let snapshotter =
                Snapshotter::new(snapshots.clone(), stock.clone(), settings.snapshot_every, metrics.clone());
            let mut replica =
                Replica::new(store, snapshots, stock.clone(), worker, loading.clone(), metrics.clone());
            replica.load().await?;
            let (commands, inbox) = mpsc::channel(QUEUE);
            let writer = Writer {
                replica,
                snapshotter,
                stock: stock.clone(),
                inbox,
                together: settings.batch,
                worker,
                batch: 0,
                metrics: metrics.clone(),
                bounds: settings.bounds,
                fill: Fill::default(),
            };
            let (end, ended) = watch::channel(None);
            tokio::spawn(async move {
                let broken = match tokio::spawn(writer.run()).await {
                    Ok(Ok(())) => return,
                    Ok(Err(broken)) => broken,
                    Err(error) => LedgerError::Panicked(error.to_string()),
                };
                tracing::error!(error = %broken, "the ledger failed");
                let _ = end.send(Some(Arc::new(broken)));
            });
            let (bounds, span) = (settings.bounds, Span::default());
            Ok(Ledger { commands, stock, loading, ended, metrics, clock, guard, bounds, span })
        };
        let mut opening = Box::pin(opening);
        loop {
            let pieces = furthest.get().map_or(0, |pieces| pieces.load(Ordering::Relaxed));
            // A large snapshot has more time, as long as it makes progress.
            let until = begun + OPEN + PIECE.saturating_mul(u32::try_from(pieces).unwrap_or(u32::MAX));
            if Instant::now() >= until {
                return Err(LedgerError::Slow);
            }
            if let Ok(opened) = tokio::time::timeout_at(until, &mut opening).await {
                return opened;
            }
        }
    }

    /// The stock as far as it is committed. Hold the guard briefly, and never across an await.
    pub fn stock(&self) -> RwLockReadGuard<'_, Stock> {
        // A panic leaves the stock consistent: an entry is checked before it is applied.
        self.stock.read()
    }

    /// The clock for times in the ledger, and for times that are compared with them.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The bounds of what the stock keeps.
    pub fn bounds(&self) -> Amounts {
        self.bounds
    }

    /// The stream checks: nothing is written while one finds a mismatch.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The same ledger, for work under this span.
    #[must_use]
    pub fn under(&self, span: &Span) -> Ledger {
        Ledger { span: span.clone(), ..self.clone() }
    }

    /// Decides and commits a command. Returns after the commit of everything that the answer depends on.
    pub async fn submit(&self, command: Command, deadline: Instant) -> Result<Decision, Denial> {
        let may = match command {
            Command::CatchUp => self.guard.may_read(order_streams::INVENTORY),
            _ => self.guard.may_write(order_streams::INVENTORY),
        };
        may.map_err(|error| Denial::Failed(nats::failure::of_store(&error)))?;
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
                Err(nats::failure::of_store(&StoreError::Unavailable("no answer in time".to_owned())))
            }
            Err(Denial::Failed(failure)) => Err(failure),
            Err(Denial::Refused(_)) => Err(Failure::new(Reason::Internal, "a read of the stock was refused")),
        }
    }

    /// Returns when the ledger has failed, with the reason.
    pub async fn broken(&self) -> Arc<LedgerError> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(broken) => broken.clone().unwrap_or_else(|| Arc::new(LedgerError::Slow)),
            // The writer ends without a reason only when every handle is dropped, so nobody waits here.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether it accepts commands: the writer runs and the stock is loaded.
    pub fn ready(&self) -> bool {
        !self.commands.is_closed() && !self.loading.load(Ordering::Acquire)
    }
}

impl Source for Ledger {
    fn collect(&self, page: &mut Exposition) {
        let metrics = &*self.metrics;
        let counts = [
            ("ledger_commits_total", "Committed appends.", &metrics.commits),
            ("ledger_commands_total", "Commands decided and answered.", &metrics.commands),
            (
                "ledger_conflicts_total",
                "Appends refused because another worker was first.",
                &metrics.conflicts,
            ),
            (
                "ledger_undetermined_total",
                "Appends whose outcome was undetermined at first.",
                &metrics.undetermined,
            ),
            (
                "ledger_barriers_total",
                "Reads of the leader's last sequence before an answer.",
                &metrics.barriers,
            ),
            (
                "ledger_loads_total",
                "Loads of snapshot and entries: one at start, more after holes.",
                &metrics.loads,
            ),
            ("ledger_snapshot_failures_total", "Failed snapshots.", &metrics.unmade),
        ];
        for (name, help, count) in counts {
            page.counter(name, help, &[], count.get());
        }
        page.histogram("ledger_batch_commands", "Commands per batch.", &[], &metrics.batches);
        page.histogram("ledger_commit_duration_seconds", "Duration of a commit.", &[], &metrics.times);
        let (sequence, amounts, (known, open)) = {
            let stock = self.stock();
            (stock.sequence(), stock.amounts(), stock.reservations())
        };
        let levels = [
            ("ledger_sequence", "The last entry that the stock includes.", sequence as f64),
            (
                "ledger_lag",
                "Entries behind the leader at the last barrier.",
                metrics.lag.load(Ordering::Relaxed) as f64,
            ),
            (
                "ledger_snapshot_sequence",
                "Sequence of the newest known snapshot.",
                metrics.snapshot.load(Ordering::Relaxed) as f64,
            ),
            (
                "ledger_snapshot_age_seconds",
                "Seconds since the newest snapshot became known; -1: none.",
                metrics.age(),
            ),
            ("inventory_products", "Products.", amounts.products as f64),
            ("inventory_products_limit", "Limit of products.", self.bounds.products as f64),
            ("inventory_adjustments", "Remembered ids of adjustments.", amounts.adjustments as f64),
            ("inventory_adjustments_limit", "Limit of remembered ids.", self.bounds.adjustments as f64),
            ("inventory_reservations_limit", "Limit of reservations.", self.bounds.reservations as f64),
            ("inventory_reservations", "Reservations, finished ones included.", known as f64),
            ("inventory_reservations_open", "Reservations without an order, which may expire.", open as f64),
        ];
        for (name, help, value) in levels {
            page.gauge(name, help, &[], value);
        }
        let outages = self.guard().outages();
        let storable = outages.iter().all(|(stream, _)| *stream != order_streams::INVENTORY);
        let help = "Whether the ledger accepts commands and can store their facts.";
        page.flag("ledger_ready", help, &[], self.ready() && storable);
    }
}

fn overloaded() -> Failure {
    Failure::overloaded(
        "the ledger",
        &format!("limit of {QUEUE} waiting commands reached"),
        nats::failure::RETRY,
    )
}

fn closed() -> Failure {
    Failure::new(Reason::StorageUnavailable, "this worker's ledger has stopped")
        .delivered(Delivered::Unknown)
        .retry_after(nats::failure::RETRY)
}
