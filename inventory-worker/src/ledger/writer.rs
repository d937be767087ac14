//! The one task that changes this worker's stock. It decides all commands that wait on the stock at sequence N,
//! appends their facts as one entry that expects N to be the last, and answers when that is settled:
//! nothing leaves before the batch it was decided in is committed or decided again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use contract::{Delivered, Failure, Reason};
use link::inbox::{backoff, jitter};
use link::{Expect, Store, StoreError, streams};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Answer, Broken, Denial, Feed, Request, Settings, Snapshots};
use crate::clock::unix_ms;
use crate::stock::{Command, Draft, Entry, Fact, Stock};

/// How long one append or read may take before it is repeated.
const ATTEMPT: Duration = Duration::from_secs(1);
/// How long a batch may take before its callers are told that the outcome is not known.
const COMMIT: Duration = Duration::from_secs(5);
/// How long the feed may take to bring an entry that is known to exist, before it is asked again what exists.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How long the feed may bring nothing while the ledger is loaded.
const STALL: Duration = Duration::from_secs(10);
/// How often a hole may be found when loading anew before it is taken for good.
const HOLES: u32 = 5;
/// Room in a message for its headers and its entry's frame.
const FRAME: usize = 1_024;

pub(super) struct Writer {
    store: Store,
    snapshots: Snapshots,
    stock: Arc<RwLock<Stock>>,
    feed: Feed,
    inbox: mpsc::Receiver<Request>,
    settings: Settings,
    worker: Uuid,
    batch: u64,
    /// The sequence of the last entry from the feed that this worker wrote, with its batch.
    mine: Option<(u64, u64)>,
    snapshot: u64,
    snapshotting: Arc<AtomicBool>,
}

/// A batch that was decided on the stock at `at`.
struct Round {
    at: u64,
    facts: Vec<Fact>,
    verdicts: Vec<Result<Answer, Denial>>,
    /// Whether an answer among them has to be confirmed as current: refusals, looks, and no-ops.
    confirm: bool,
}

impl Writer {
    pub(super) fn new(
        store: Store,
        snapshots: Snapshots,
        stock: Arc<RwLock<Stock>>,
        inbox: mpsc::Receiver<Request>,
        settings: Settings,
    ) -> Writer {
        let feed = Feed::after(store.link().clone(), 0);
        let (worker, snapshotting) = (Uuid::new_v4(), Arc::new(AtomicBool::new(false)));
        Writer {
            store,
            snapshots,
            stock,
            feed,
            inbox,
            settings,
            worker,
            batch: 0,
            mine: None,
            snapshot: 0,
            snapshotting,
        }
    }

    /// Loads the newest snapshot and replays the entries after it, up to the last there is now.
    pub(super) async fn load(&mut self) -> Result<(), Broken> {
        let stock = self.snapshots.newest().await.map_err(Broken::Snapshots)?.unwrap_or_default();
        self.snapshot = stock.sequence();
        let range = self.store.range(Instant::now() + CATCH_UP).await?;
        if range.first > self.snapshot + 1 {
            return Err(Broken::Hole { first: range.first, snapshot: self.snapshot });
        }
        self.feed = Feed::after(self.store.link().clone(), self.snapshot);
        *self.stock.write().unwrap_or_else(PoisonError::into_inner) = stock;
        while self.sequence() < range.last {
            let next = tokio::time::timeout(STALL, self.feed.next()).await;
            let (sequence, bytes) = next.map_err(|_| Broken::Slow)?;
            if sequence > self.sequence() + 1 {
                // A purge came in between; the next attempt finds a newer snapshot.
                return Err(Broken::Hole { first: sequence, snapshot: self.sequence() });
            }
            self.apply(sequence, &bytes)?;
        }
        tracing::info!(snapshot = self.snapshot, sequence = self.sequence(), "the ledger is loaded");
        Ok(())
    }

    /// Works until every handle is gone, or the ledger cannot go on.
    pub(super) async fn run(mut self) -> Result<(), Broken> {
        let mut batch = Vec::with_capacity(self.settings.batch);
        loop {
            tokio::select! {
                (sequence, bytes) = self.feed.next() => self.take(sequence, &bytes).await?,
                count = self.inbox.recv_many(&mut batch, self.settings.batch) => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.serve(&mut batch).await?;
                }
            }
            self.maybe_snapshot();
        }
    }

    /// Decides a batch again and again until it is settled, and answers it.
    async fn serve(&mut self, batch: &mut Vec<Request>) -> Result<(), Broken> {
        loop {
            let now = Instant::now();
            for late in batch.extract_if(.., |request| request.deadline <= now || request.answer.is_closed())
            {
                let _ = late.answer.send(Err(Denial::Failed(too_late())));
            }
            if batch.is_empty() {
                return Ok(());
            }
            let round = self.decide(batch);
            let settled = if !round.facts.is_empty() {
                self.commit(round.at, round.facts).await
            } else if round.confirm {
                self.confirm(round.at).await
            } else {
                Ok(true)
            };
            let verdicts = match settled {
                Ok(false) => continue,
                Ok(true) => round.verdicts,
                Err(Stop::Broken(broken)) => return Err(broken),
                Err(Stop::Failed(failure)) => {
                    round.verdicts.iter().map(|_| Err(Denial::Failed(failure.clone()))).collect()
                }
            };
            for (request, verdict) in batch.drain(..verdicts.len()).zip(verdicts) {
                let _ = request.answer.send(verdict);
            }
        }
    }

    /// Decides as many commands as fit into one message.
    fn decide(&self, batch: &[Request]) -> Round {
        let stock = self.stock.read().unwrap_or_else(PoisonError::into_inner);
        let (mut draft, mut verdicts, mut confirm) = (Draft::over(&stock, unix_ms()), Vec::new(), false);
        let mut room = self.store.link().client().max_payload().saturating_sub(FRAME);
        for request in batch {
            let size = size(&request.command);
            if size > room && !verdicts.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            verdicts.push(match draft.decide(&request.command) {
                Ok(recorded) => {
                    // A repeated reservation that still holds is safe to confirm from an older state (MODEL.md).
                    confirm |= !recorded && !matches!(request.command, Command::Reserve { .. });
                    Ok(Answer::to(&request.command, &draft))
                }
                Err(refusal) => {
                    confirm = true;
                    Err(Denial::Refused(refusal))
                }
            });
        }
        Round { at: stock.sequence(), facts: draft.facts(), verdicts, confirm }
    }

    /// Appends facts that were decided at `at`. `false`: another worker was first; decide again.
    async fn commit(&mut self, at: u64, facts: Vec<Fact>) -> Result<bool, Stop> {
        self.batch += 1;
        let entry = Entry { worker: self.worker, batch: self.batch, at: unix_ms(), facts };
        let payload = serde_json::to_vec(&entry).map(Bytes::from).map_err(|error| {
            tracing::error!(%error, "an entry cannot be written");
            Stop::Failed(
                Failure::new(Reason::Internal, "the change cannot be written").delivered(Delivered::No),
            )
        })?;
        let until = Instant::now() + COMMIT;
        let (mut open, mut attempt) = (false, 0);
        loop {
            let deadline = until.min(Instant::now() + ATTEMPT);
            let appended = self
                .store
                .append(
                    streams::LEDGER_SUBJECT,
                    HeaderMap::new(),
                    payload.clone(),
                    Expect::Last(at),
                    deadline,
                )
                .await;
            let trouble = match appended {
                Ok(sequence) if sequence == at + 1 => {
                    return self.commit_own(sequence, &entry).map(|()| true);
                }
                Ok(sequence) => {
                    StoreError::Unexpected(format!("{at} was expected to be last, and {sequence} came next"))
                }
                Err(StoreError::Conflict) => match self.whose(at + 1).await? {
                    Some(mine) => return Ok(mine),
                    // Nothing is there: an append is in flight, or a deposed leader answered. Repeat.
                    None => StoreError::Undetermined("a conflict with nothing".to_owned()),
                },
                Err(error) => error,
            };
            open |= matches!(trouble, StoreError::Undetermined(_));
            let final_word = matches!(
                trouble,
                StoreError::Full(_) | StoreError::TooLarge { .. } | StoreError::Unexpected(_)
            );
            if final_word || Instant::now() >= until {
                // If it was stored after all, the feed brings it, and the next batch expects more than `at`.
                let outcome = if open { StoreError::Undetermined(trouble.to_string()) } else { trouble };
                return Err(Stop::Failed(link::failure::of_store(&outcome)));
            }
            tokio::time::sleep(backoff(Duration::from_millis(5), attempt, Duration::from_millis(250))).await;
            attempt += 1;
        }
    }

    /// Takes an own entry that was acknowledged, without waiting for the feed to bring it.
    fn commit_own(&mut self, sequence: u64, entry: &Entry) -> Result<(), Stop> {
        let mut stock = self.stock.write().unwrap_or_else(PoisonError::into_inner);
        stock.apply(sequence, entry).map_err(|error| Stop::Broken(error.into()))
    }

    /// Whether the entry at a sequence is this worker's current one; `None` where there is no such entry.
    async fn whose(&mut self, sequence: u64) -> Result<Option<bool>, Stop> {
        let there = self.catch_up(sequence).await?;
        Ok(there.then(|| self.mine == Some((sequence, self.batch))))
    }

    /// Whether `at` is still the last sequence, as the leader says. If not, the stock is brought up to date.
    async fn confirm(&mut self, at: u64) -> Result<bool, Stop> {
        let until = Instant::now() + COMMIT;
        let mut attempt = 0;
        loop {
            match self.store.range(until.min(Instant::now() + ATTEMPT)).await {
                Ok(range) if range.last == at => return Ok(true),
                Ok(range) if range.last > at => {
                    if self.catch_up(range.last).await? {
                        return Ok(false);
                    }
                }
                // A leader that knows less than was acknowledged is none any more: ask again.
                Ok(_) | Err(StoreError::Unavailable(_) | StoreError::Disconnected)
                    if Instant::now() < until => {}
                Ok(_) => {
                    return Err(Stop::Failed(link::failure::of_store(&StoreError::Unavailable(
                        "the leader is behind".to_owned(),
                    ))));
                }
                Err(error) => return Err(Stop::Failed(link::failure::of_store(&error))),
            }
            tokio::time::sleep(backoff(Duration::from_millis(5), attempt, Duration::from_millis(250))).await;
            attempt += 1;
        }
    }

    /// Takes entries from the feed up to a sequence. `false` if they do not come: it may never exist.
    async fn catch_up(&mut self, sequence: u64) -> Result<bool, Stop> {
        let until = Instant::now() + CATCH_UP;
        while self.sequence() < sequence {
            let Ok((next, bytes)) = tokio::time::timeout_at(until, self.feed.next()).await else {
                return Ok(false);
            };
            self.take(next, &bytes).await.map_err(Stop::Broken)?;
        }
        Ok(true)
    }

    /// Takes an entry that the feed brought. On a hole, everything is loaded anew: what is missing cannot be known.
    async fn take(&mut self, sequence: u64, bytes: &[u8]) -> Result<(), Broken> {
        let applied = self.sequence();
        if sequence <= applied {
            return Ok(());
        }
        if sequence > applied + 1 {
            tracing::warn!(
                applied,
                sequence,
                "entries are missing: a purge was faster; loading the newest snapshot"
            );
            return self.reload().await;
        }
        self.apply(sequence, bytes)
    }

    /// Loads until it succeeds: nothing may be decided on a hole, and storage that is away comes back.
    async fn reload(&mut self) -> Result<(), Broken> {
        let mut holes = 0;
        loop {
            match self.load().await {
                Ok(()) => return Ok(()),
                Err(error @ (Broken::Unreadable { .. } | Broken::Contradiction(_))) => return Err(error),
                Err(error @ Broken::Hole { .. }) if holes == HOLES => return Err(error),
                Err(error) => {
                    holes += u32::from(matches!(error, Broken::Hole { .. }));
                    tracing::warn!(%error, "the ledger could not be loaded; it is tried again");
                }
            }
            tokio::time::sleep(backoff(Duration::from_millis(100), 4, COMMIT)).await;
        }
    }

    /// Applies the entry after the last one.
    fn apply(&mut self, sequence: u64, bytes: &[u8]) -> Result<(), Broken> {
        if sequence <= self.sequence() {
            return Ok(());
        }
        let entry: Entry = serde_json::from_slice(bytes)
            .map_err(|error| Broken::Unreadable { sequence, why: error.to_string() })?;
        if entry.worker == self.worker {
            self.mine = Some((sequence, entry.batch));
        }
        self.stock.write().unwrap_or_else(PoisonError::into_inner).apply(sequence, &entry)?;
        Ok(())
    }

    /// Starts a snapshot when enough entries came since the last one, one at a time.
    fn maybe_snapshot(&mut self) {
        let due = self.sequence() >= self.snapshot + self.settings.snapshot_every;
        if !due || self.snapshotting.swap(true, Ordering::AcqRel) {
            return;
        }
        self.snapshot = self.sequence();
        let (stock, snapshots, every) =
            (self.stock.clone(), self.snapshots.clone(), self.settings.snapshot_every);
        let running = self.snapshotting.clone();
        tokio::spawn(async move {
            if let Err(why) = snapshot(&stock, &snapshots, every).await {
                tracing::error!(why, "the snapshot was not made");
            }
            running.store(false, Ordering::Release);
        });
    }

    fn sequence(&self) -> u64 {
        self.stock.read().unwrap_or_else(PoisonError::into_inner).sequence()
    }
}

/// Makes a snapshot, unless another worker just made one: workers reach the same count at the same time.
async fn snapshot(stock: &RwLock<Stock>, snapshots: &Snapshots, every: u64) -> Result<(), String> {
    tokio::time::sleep(Duration::from_millis(jitter(500))).await;
    let newest = snapshots.list().await?.first().copied().unwrap_or(0);
    let (sequence, bytes) = {
        let stock = stock.read().unwrap_or_else(PoisonError::into_inner);
        if stock.sequence() < newest + every / 2 {
            return Ok(());
        }
        (stock.sequence(), stock.to_snapshot().map_err(|error| error.to_string())?)
    };
    snapshots.write(sequence, &bytes).await?;
    tracing::info!(sequence, bytes = bytes.len(), "a snapshot was made");
    Ok(())
}

/// Why a batch is not settled.
enum Stop {
    Failed(Failure),
    Broken(Broken),
}

/// About how many bytes the command's fact takes in the ledger, rather too many.
fn size(command: &Command) -> usize {
    match command {
        Command::Reserve { items, .. } => {
            160 + items.iter().map(|item| item.product.len() + 16).sum::<usize>()
        }
        Command::Adjust { request, lines, reason } => {
            // A reason may be escaped in JSON.
            160 + request.len()
                + 6 * reason.len()
                + lines.iter().map(|(product, _)| product.len() + 20).sum::<usize>()
        }
        Command::Count(lines) => 64 + lines.iter().map(|(product, _)| product.len() + 20).sum::<usize>(),
        _ => 160,
    }
}

fn too_late() -> Failure {
    Failure::new(Reason::Timeout, "its deadline passed before the work began").delivered(Delivered::No)
}
