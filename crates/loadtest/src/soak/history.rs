//! The history of a soak: operations and their outcomes, as the callers saw them. Must not depend on how calls are
//! made.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::orders::v1::{Order, OrderStatus};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// How many violations are kept.
const KEPT: usize = 50;

/// How one attempt of an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It was acknowledged, with this etag if it is an order.
    Ok(u64),
    /// It was refused for this reason, so it was not done.
    Refused(String),
    /// It was not delivered, so it was not done.
    Not,
    /// It may have been done.
    Open,
}

/// A requested order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Create {
    pub(crate) items: Vec<(String, u32)>,
    pub(crate) ends: Vec<End>,
}

/// A requested change of status.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) order_id: String,
    /// The expected etag.
    pub(crate) from: Option<u64>,
    pub(crate) to: OrderStatus,
    pub(crate) end: End,
}

/// A requested adjustment of stock.
#[derive(Debug, Clone)]
pub(crate) struct Adjustment {
    pub(crate) product: String,
    pub(crate) delta: i32,
    pub(crate) ends: Vec<End>,
}

/// Everything that was recorded so far.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// By order id.
    pub(crate) creates: BTreeMap<String, Create>,
    pub(crate) updates: Vec<Update>,
    /// By request id.
    pub(crate) adjustments: BTreeMap<String, Adjustment>,
    /// How attempts ended.
    pub(crate) kinds: BTreeMap<String, u64>,
    /// When writes succeeded, since the beginning.
    pub(crate) writes: Vec<Duration>,
    /// Observations that must never occur.
    pub(crate) violations: Vec<String>,
}

/// The history. Shared by all callers.
#[derive(Debug)]
pub(crate) struct History {
    book: Mutex<Book>,
    begun: Instant,
}

impl History {
    pub(crate) fn new() -> History {
        History { book: Mutex::default(), begun: Instant::now() }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock()
    }

    /// Records an acknowledged write.
    pub(crate) fn wrote(&self) {
        self.book().writes.push(self.begun.elapsed());
    }

    /// Records an observation that must never occur.
    pub(crate) fn violation(&self, what: String) {
        let mut book = self.book();
        if book.violations.len() < KEPT {
            book.violations.push(format!("{:.1} s: {what}", self.begun.elapsed().as_secs_f64()));
        }
    }

    /// The outcome of an attempt. A status that is not in the truth table is a violation.
    pub(crate) fn judge<T>(
        &self,
        what: &str,
        result: Result<T, Status>,
        etag: impl Fn(&T) -> u64,
    ) -> (Option<T>, End) {
        let status = match result {
            Ok(value) => {
                *self.book().kinds.entry(format!("{what} OK")).or_default() += 1;
                let end = End::Ok(etag(&value));
                return (Some(value), end);
            }
            Err(status) => status,
        };
        let (kind, end) = read(&status);
        *self.book().kinds.entry(format!("{what} {kind}")).or_default() += 1;
        if let Some(end) = end {
            return (None, end);
        }
        self.violation(format!("{what} was answered with {status:?}"));
        (None, End::Open)
    }
}

/// The outcome of a status by the truth table; `None` if it is not there.
fn read(status: &Status) -> (String, Option<End>) {
    let Some(info) = status.get_details_error_info() else {
        // A local error: the connection broke, or the client's own timer expired first.
        let ours = std::error::Error::source(status).is_some() || status.message() == TIMER;
        return ("no reply".to_owned(), ours.then_some(End::Open));
    };
    let delivered = info.metadata.get("delivered").map_or("", String::as_str);
    let kind = format!("{:?} {} {delivered}", status.code(), info.reason);
    let end = match (status.code(), delivered) {
        (Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition, _) => {
            Some(End::Refused(info.reason))
        }
        (Code::Aborted, _) if info.reason == "ETAG_MISMATCH" => Some(End::Refused(info.reason)),
        (Code::Unavailable | Code::Aborted | Code::ResourceExhausted | Code::DeadlineExceeded, "no") => {
            Some(End::Not)
        }
        (
            Code::Unavailable | Code::Aborted | Code::DeadlineExceeded | Code::ResourceExhausted,
            "yes" | "unknown",
        ) => Some(End::Open),
        _ => None,
    };
    (kind, end)
}

/// The status message of the client's own timer in calls of the soak.
pub(crate) const TIMER: &str = "the client's own timer";

/// The etag of an order as a number, 0 if it is not one.
pub(crate) fn etag(order: &Order) -> u64 {
    order.etag.parse().unwrap_or(0)
}

impl Book {
    /// The longest time without a write between two moments.
    pub(crate) fn gap(&self, from: Duration, to: Duration) -> Duration {
        let mut last = from;
        let mut gap = Duration::ZERO;
        for at in self.writes.iter().filter(|at| (from..to).contains(*at)).chain([&to]) {
            gap = gap.max(at.saturating_sub(last));
            last = *at;
        }
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_counts_the_edges() {
        let seconds = |seconds: &[u64]| seconds.iter().map(|second| Duration::from_secs(*second)).collect();
        let book = Book { writes: seconds(&[1, 2, 9, 30]), ..Book::default() };
        let gap = |from, to| book.gap(Duration::from_secs(from), Duration::from_secs(to)).as_secs();
        assert_eq!((gap(0, 10), gap(3, 10), gap(10, 20)), (7, 6, 10));
    }
}
