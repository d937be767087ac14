//! The only task that changes this worker's stock. It decides all waiting commands on the stock at sequence N, appends
//! their facts as one entry that expects N to be the last, and answers when the outcome is known: no answer leaves
//! before the batch in which it was decided is committed or decided again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use bytes::Bytes;
use nats::backoff::backoff;
use nats::{Expect, StoreError};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;
use wire::{Delivered, Failure, Reason};

use super::replica::Replica;
use super::request::{Request, Verdict, answer};
use super::snapshotter::Snapshotter;
use super::{Decision, Denial, Fill, LedgerError, LedgerMetrics};
use crate::stock::{Amounts, Command, Draft, Entry, Fact, Stock};
use crate::waits::{APPEND, COMMIT};

/// Full jitter below this before an append or a read is repeated; doubling.
const BACKOFF: Duration = Duration::from_millis(5);
const BACKOFF_MOST: Duration = Duration::from_millis(250);
/// Bytes of a message that are reserved for its headers and the entry's frame.
const FRAME: usize = 1_024;

pub(super) struct Writer {
    pub(super) replica: Replica,
    pub(super) snapshotter: Snapshotter,
    pub(super) stock: Arc<RwLock<Stock>>,
    pub(super) inbox: mpsc::Receiver<Request>,
    /// The most commands of a batch.
    pub(super) together: usize,
    pub(super) worker: Uuid,
    pub(super) batch: u64,
    pub(super) metrics: Arc<LedgerMetrics>,
    pub(super) bounds: Amounts,
    pub(super) fill: Fill,
}

/// A batch that was decided on the stock at `at`.
struct Round {
    at: u64,
    facts: Vec<Fact>,
    verdicts: Vec<Verdict>,
    /// Whether one of the answers has to be confirmed as current: refusals, reads, and no-ops.
    confirm: bool,
}

/// Whether the outcome of a batch is known.
enum Settled {
    Yes,
    /// No: decide again. Decisions on the stock from this sequence on need no further barrier, because it was the last
    /// one after the batch had come in.
    Again {
        current: u64,
    },
}

/// Why the outcome of a batch is not known.
enum Stop {
    Failed(Failure),
    Broken(LedgerError),
}

impl Writer {
    /// Runs until every handle is dropped, or the ledger fails.
    pub(super) async fn run(mut self) -> Result<(), LedgerError> {
        let mut batch = Vec::with_capacity(self.together);
        loop {
            tokio::select! {
                (sequence, bytes) = self.replica.next() => self.replica.take(sequence, &bytes).await?,
                count = self.inbox.recv_many(&mut batch, self.together) => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.serve(&mut batch).await?;
                }
            }
            self.snapshotter.look(self.replica.sequence());
            let amounts = self.stock.read().amounts();
            self.fill.look(amounts, self.bounds);
        }
    }

    /// Decides a batch until its outcome is known, and answers it.
    async fn serve(&mut self, batch: &mut Vec<Request>) -> Result<(), LedgerError> {
        let mut current = u64::MAX;
        loop {
            self.replica.take_ready().await?;
            let now = Instant::now();
            let over = batch.extract_if(.., |request| !request.begin(now));
            answer(over.map(|request| (request, Err(Denial::Failed(too_late())))));
            if batch.is_empty() {
                return Ok(());
            }
            let round = self.decide(batch);
            // Nobody waits beyond the last of their deadlines.
            let last = batch[..round.verdicts.len()].iter().map(|request| request.deadline).max();
            let until = last.unwrap_or(now).min(now + COMMIT);
            let begun = SystemTime::now();
            let settled = if !round.facts.is_empty() {
                self.commit(round.at, round.facts, until).await
            } else if round.confirm && round.at < current {
                self.confirm(round.at, until).await
            } else {
                Ok(Settled::Yes)
            };
            let verdicts = match settled {
                Ok(Settled::Again { current: last }) => {
                    current = current.min(last);
                    continue;
                }
                Ok(Settled::Yes) => round.verdicts,
                Err(Stop::Broken(broken)) => return Err(broken),
                Err(Stop::Failed(failure)) => {
                    round.verdicts.iter().map(|_| Err(Denial::Failed(failure.clone()))).collect()
                }
            };
            let together = verdicts.len();
            self.metrics.commands.add(together as u64);
            batch[..together].iter().for_each(|request| request.trace(begun, together));
            answer(batch.drain(..together).zip(verdicts));
        }
    }

    /// Decides as many commands as fit into one message.
    fn decide(&self, batch: &[Request]) -> Round {
        let stock = self.stock.read();
        let (mut draft, mut verdicts, mut confirm) =
            (Draft::over(&stock, self.now()).within(self.bounds), Vec::new(), false);
        let mut room = self.replica.store().connection().client().max_payload().saturating_sub(FRAME);
        for request in batch {
            let size = size(&request.command);
            if size > room && !verdicts.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            verdicts.push(match draft.decide(&request.command) {
                Ok(recorded) => {
                    // A repeated reservation that still holds needs no barrier (docs/protocol.md#ledger-rules, 3).
                    confirm |= !recorded && !matches!(request.command, Command::Reserve { .. });
                    Ok(Decision::to(&request.command, &draft))
                }
                Err(refusal) => {
                    confirm = true;
                    Err(Denial::Refused(refusal))
                }
            });
        }
        Round { at: stock.sequence(), facts: draft.facts(), verdicts, confirm }
    }

    /// Appends facts that were decided at `at`.
    async fn commit(&mut self, at: u64, facts: Vec<Fact>, until: Instant) -> Result<Settled, Stop> {
        self.batch += 1;
        let previous = self.stock.read().last_entry();
        let entry = Entry { worker: self.worker, batch: self.batch, previous, at: self.now(), facts };
        let payload = serde_json::to_vec(&entry).map(Bytes::from).map_err(|error| {
            let failure = Failure::new(Reason::Internal, "the change cannot be encoded");
            Stop::Failed(failure.delivered(Delivered::No).because(error))
        })?;
        let begun = Instant::now();
        let (mut open, mut attempt) = (false, 0);
        self.metrics.batches.observe(entry.facts.len() as u64);
        loop {
            let trouble = match self.append(at, payload.clone(), until).await {
                Ok(sequence) if sequence == at + 1 => {
                    self.replica.apply(sequence, &entry).map_err(Stop::Broken)?;
                    self.metrics.commits.increment();
                    self.metrics.times.observe_time(begun.elapsed());
                    return Ok(Settled::Yes);
                }
                Ok(next) => StoreError::Unexpected(format!("{next} came after {at}")),
                Err(StoreError::Conflict { .. }) => match self.whose(at + 1, until).await? {
                    Some(true) => return Ok(Settled::Yes),
                    Some(false) => {
                        self.metrics.conflicts.increment();
                        return Ok(Settled::Again { current: u64::MAX });
                    }
                    // No newer entry: an append is in flight, or a deposed leader answered. Repeat.
                    None => StoreError::Undetermined("wrong last sequence, but no newer entry".to_owned()),
                },
                Err(error) => error,
            };
            if matches!(trouble, StoreError::Undetermined(_)) {
                open = true;
                self.metrics.undetermined.increment();
            }
            // The stream has no leader: an election, or the stream was deleted.
            let trouble = match trouble {
                StoreError::Unavailable(why) => {
                    self.gone(until).await.unwrap_or(StoreError::Unavailable(why))
                }
                trouble => trouble,
            };
            let hopeless = matches!(
                trouble,
                StoreError::Full(_)
                    | StoreError::Unusable(_)
                    | StoreError::Down(_)
                    | StoreError::NotPermitted
                    | StoreError::TooLarge { .. }
                    | StoreError::Unexpected(_)
            );
            if hopeless || Instant::now() >= until {
                // If it was stored after all, the feed delivers it, and the next batch expects more than `at`.
                let outcome = if open { StoreError::Undetermined(trouble.to_string()) } else { trouble };
                return Err(Stop::Failed(nats::failure::of_store(&outcome)));
            }
            tokio::time::sleep(backoff(BACKOFF, attempt, BACKOFF_MOST)).await;
            attempt += 1;
        }
    }

    /// Fact time: JetStream's, so that no worker's clock moves a horizon.
    fn now(&self) -> u64 {
        self.replica.store().connection().clock().unix_ms()
    }

    async fn append(&self, at: u64, payload: Bytes, until: Instant) -> Result<u64, StoreError> {
        let deadline = until.min(Instant::now() + APPEND);
        let store = self.replica.store();
        store
            .append(order_streams::LEDGER_SUBJECT, HeaderMap::new(), payload, Expect::Last(at), deadline)
            .await
    }

    /// Whether the ledger no longer exists, according to JetStream.
    async fn gone(&self, until: Instant) -> Option<StoreError> {
        let range = self.replica.store().range(until.min(Instant::now() + APPEND)).await;
        range.err().filter(|error| matches!(error, StoreError::Unusable(_) | StoreError::Down(_)))
    }

    /// Whether the entry at a sequence is this worker's current one; `None` if there is no such entry.
    async fn whose(&mut self, sequence: u64, until: Instant) -> Result<Option<bool>, Stop> {
        let loads = self.replica.loads();
        let there = self.replica.catch_up(sequence, until).await.map_err(Stop::Broken)?;
        if loads != self.replica.loads() {
            // A snapshot does not tell who wrote its entries.
            let unknown = StoreError::Undetermined("the ledger was reloaded meanwhile".to_owned());
            return Err(Stop::Failed(nats::failure::of_store(&unknown)));
        }
        Ok(there.then(|| self.replica.wrote(sequence, self.batch)))
    }

    /// Barrier: whether `at` is still the leader's last sequence. If not, the stock is brought up to date.
    async fn confirm(&mut self, at: u64, until: Instant) -> Result<Settled, Stop> {
        let mut attempt = 0;
        self.metrics.barriers.increment();
        loop {
            let in_time = Instant::now() < until;
            let range = self.replica.store().range(until.min(Instant::now() + APPEND)).await;
            if let Ok(range) = &range {
                self.metrics.behind(range.last.saturating_sub(at));
                self.snapshotter.look_for_hole(at, range.first);
            }
            match range {
                Ok(range) if range.last == at => return Ok(Settled::Yes),
                Ok(range) if range.last > at => {
                    if self.replica.catch_up(range.last, until).await.map_err(Stop::Broken)? {
                        return Ok(Settled::Again { current: range.last });
                    }
                }
                // A leader that knows less than was acknowledged was deposed: ask again.
                Ok(_) | Err(StoreError::Unavailable(_) | StoreError::Disconnected) if in_time => {}
                // Or the ledger has lost its end: then this worker's stock is invalid.
                Ok(range) => {
                    tracing::error!(last = range.last, known = at, "the ledger ends before a known entry");
                    self.replica.load().await.map_err(Stop::Broken)?;
                    let away = StoreError::Unavailable("the ledger was reloaded".to_owned());
                    return Err(Stop::Failed(nats::failure::of_store(&away)));
                }
                Err(error) => return Err(Stop::Failed(nats::failure::of_store(&error))),
            }
            tokio::time::sleep(backoff(BACKOFF, attempt, BACKOFF_MOST)).await;
            attempt += 1;
        }
    }
}

/// An upper estimate of the bytes that the command's fact takes in the ledger.
fn size(command: &Command) -> usize {
    match command {
        Command::Reserve { items, .. } => {
            160 + items.iter().map(|item| item.product.len() + 16).sum::<usize>()
        }
        Command::Adjust { request, lines, reason } => {
            // A reason may be escaped in JSON.
            let text = request.len() + 6 * reason.len();
            160 + text + lines.iter().map(|(product, _)| product.len() + 20).sum::<usize>()
        }
        Command::Remove(products) => 64 + products.iter().map(|product| product.len() + 4).sum::<usize>(),
        Command::Count(lines) => 64 + lines.iter().map(|(product, _)| product.len() + 20).sum::<usize>(),
        _ => 160,
    }
}

/// The command waited for the writer until its deadline: the storage is slow or unavailable.
pub(super) fn too_late() -> Failure {
    Failure::new(Reason::Timeout, "the deadline passed before the work began").delivered(Delivered::No)
}
