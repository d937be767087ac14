//! The connection limit of a port, and which connection is closed when a new one exceeds it. Must not depend on the
//! contents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use telemetry::{Exposition, LineQuota, Source};
use tokio::time::Instant;

use crate::activity::{Activity, CloseReason};

/// What happens to a connection that exceeds the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is closed at once, unless some connection has been idle for some seconds: the one that has been idle longest
    /// is asked to close gracefully.
    Yield,
    /// The connection that has waited longest for a request is closed for it. For probe ports, where probes must get
    /// in.
    Evict,
}

/// A connection without a call for this long is closed for a new one.
const IDLE: Duration = Duration::from_secs(10);
/// Maximum connections asked to close at the same time; each still holds a descriptor.
pub const LEAVING: usize = 64;
/// Interval between two scans for idle connections, and how many a scan remembers.
const LOOK: Duration = Duration::from_secs(1);
const REMEMBERED: usize = 256;

/// The connection limit of a port. Clones share it.
#[derive(Debug, Clone)]
pub struct ConnectionLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The port's name in metrics.
    port: &'static str,
    /// How the log names the limit: its variable, or that it is fixed.
    limit: &'static str,
    most: usize,
    full: WhenFull,
    taken: Mutex<Taken>,
    refused: AtomicU64,
    evicted: AtomicU64,
    idle: AtomicU64,
    slow: AtomicU64,
    lines: LineQuota,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    seated: BTreeMap<u64, Arc<Activity>>,
    /// Connections that were asked to close, and have not yet.
    leaving: usize,
    /// Connections that were idle at the last scan, the longest idle last.
    idle: Vec<u64>,
    looked: Option<Instant>,
}

/// One connection's place within the limit, freed on drop.
#[derive(Debug)]
pub struct ConnectionPermit {
    seats: ConnectionLimit,
    number: u64,
    activity: Arc<Activity>,
}

impl ConnectionLimit {
    /// A limit of `most` connections for a port; the log names the limit by `limit`.
    pub fn new(port: &'static str, most: u32, limit: &'static str, full: WhenFull) -> ConnectionLimit {
        ConnectionLimit(Arc::new(Shared {
            port,
            limit,
            most: most as usize,
            full,
            taken: Mutex::default(),
            refused: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            lines: LineQuota::default(),
        }))
    }

    /// Admits a connection, if the limit allows it.
    pub(crate) fn take(&self) -> Option<ConnectionPermit> {
        let mut taken = self.taken();
        if taken.seated.len() >= self.0.most {
            // Connections asked to close still hold their descriptors. Where few make room, no scan is made for each
            // new connection: refused connections must not slow down the served ones.
            let leaves = match self.0.full {
                WhenFull::Evict if taken.leaving < self.0.most => taken.oldest(),
                WhenFull::Yield if taken.leaving < LEAVING => taken.idlest(),
                WhenFull::Evict | WhenFull::Yield => None,
            };
            let Some(activity) = leaves else {
                drop(taken);
                self.refuse();
                return None;
            };
            activity.evict();
            taken.leaving += 1;
        }
        let number = taken.next;
        taken.next += 1;
        let activity = Arc::new(Activity::new());
        taken.seated.insert(number, activity.clone());
        Some(ConnectionPermit { seats: self.clone(), number, activity })
    }

    /// The number of open connections.
    pub fn taken_count(&self) -> usize {
        let taken = self.taken();
        taken.seated.len() + taken.leaving
    }

    /// The number of refused connections.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    fn refuse(&self) {
        let refused = self.0.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if self.0.lines.take() {
            tracing::warn!(
                port = self.0.port,
                limit = self.0.most,
                refused,
                "connection limit reached: connections are refused ({})",
                self.0.limit
            );
        }
    }

    /// Counts a closed connection by its reason.
    pub fn count(&self, over: CloseReason) {
        let count = match over {
            CloseReason::Evicted => &self.0.evicted,
            CloseReason::Idle => &self.0.idle,
            CloseReason::Slow => &self.0.slow,
        };
        let closed = count.fetch_add(1, Ordering::Relaxed) + 1;
        if over == CloseReason::Evicted && self.0.lines.take() {
            let (port, limit) = (self.0.port, self.0.most);
            tracing::warn!(
                port,
                limit,
                closed,
                "connection limit reached: idle connections are closed for new ones ({})",
                self.0.limit
            );
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock()
    }
}

impl Source for ConnectionLimit {
    fn collect(&self, page: &mut Exposition) {
        let label = [("port", self.0.port)];
        let taken = self.taken_count() as f64;
        page.gauge("port_connections", "Open connections of a port.", &label, taken);
        let help = "Connection limit of a port.";
        page.gauge("port_connections_limit", help, &label, self.0.most as f64);
        let closed = [
            ("refused", &self.0.refused),
            ("evicted", &self.0.evicted),
            ("idle", &self.0.idle),
            ("slow", &self.0.slow),
        ];
        for (why, count) in closed {
            let label = [("port", self.0.port), ("reason", why)];
            let help = "Connections closed by reason: refused at the limit, evicted, idle, or slow.";
            page.counter("port_connections_closed_total", help, &label, count.load(Ordering::Relaxed));
        }
    }
}

impl Taken {
    /// Removes the first connection in eviction order.
    fn oldest(&mut self) -> Option<Arc<Activity>> {
        let oldest =
            self.seated.iter().min_by_key(|(_, activity)| activity.rank()).map(|(number, _)| *number)?;
        self.seated.remove(&oldest)
    }

    /// Removes the connection that has been idle longest.
    fn idlest(&mut self) -> Option<Arc<Activity>> {
        loop {
            while let Some(number) = self.idle.pop() {
                if self.seated.get(&number).is_some_and(|activity| activity.idle() >= IDLE) {
                    return self.seated.remove(&number);
                }
            }
            if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
                return None;
            }
            self.looked = Some(Instant::now());
            let idle = self.seated.iter().map(|(number, activity)| (activity.idle(), *number));
            let mut idle: Vec<_> = idle.filter(|(time, _)| *time >= IDLE).collect();
            idle.sort_unstable();
            self.idle = idle
                .split_off(idle.len().saturating_sub(REMEMBERED))
                .iter()
                .map(|(_, number)| *number)
                .collect();
        }
    }
}

impl ConnectionPermit {
    /// The connection's activity.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// The connection limit that it counts against.
    pub fn limit(&self) -> &ConnectionLimit {
        &self.seats
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if taken.seated.remove(&self.number).is_none() {
            taken.leaving = taken.leaving.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_gets_the_seat_of_the_one_that_waits_longest() {
        let seats = ConnectionLimit::new("http", 3, "fixed", WhenFull::Evict);
        let mut three = Vec::new();
        for _ in 0..3 {
            three.push(seats.take().unwrap());
            advance(Duration::from_secs(1)).await;
        }
        // The first has a request in flight, which continues.
        three[0].activity.begin();
        let _newcomer = seats.take().unwrap();
        let asked: Vec<bool> = three.iter().map(|seat| seat.activity.leave.is_cancelled()).collect();
        assert_eq!(asked, [false, true, false]);
        assert_eq!(seats.taken_count(), 4);
        drop(three.remove(1));
        assert_eq!((seats.taken_count(), seats.refused()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_do_not_leave_in_time_are_bounded_too() {
        let seats = ConnectionLimit::new("http", 2, "fixed", WhenFull::Evict);
        let all: Vec<ConnectionPermit> = std::iter::from_fn(|| seats.take()).take(10).collect();
        assert_eq!((all.len(), seats.taken_count(), seats.refused()), (4, 4, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_been_idle_longest_makes_room_and_nobody_else_does() {
        let seats = ConnectionLimit::new("grpc", 3, "GW_MAX_CONNECTIONS", WhenFull::Yield);
        let mut three = Vec::new();
        for _ in 0..3 {
            three.push(seats.take().unwrap());
            advance(IDLE / 2).await;
        }
        // The first had a call in flight just now, and one has arrived on the second since it was last seen.
        three[0].activity.seen(true);
        three[1].activity.whole().fetch_add(1, Ordering::Relaxed);
        assert!(seats.take().is_none());
        advance(IDLE / 2).await;
        let newcomer = seats.take().unwrap();
        let asked: Vec<bool> = three.iter().map(|seat| seat.activity.leave.is_cancelled()).collect();
        assert_eq!(asked, [false, false, true]);
        // The last scan was a moment ago.
        advance(IDLE).await;
        let _second = seats.take().unwrap();
        assert!(three[0].activity.leave.is_cancelled());
        // The first new connection sends nothing either.
        let _third = seats.take().unwrap();
        assert!(newcomer.activity.leave.is_cancelled() && !three[1].activity.leave.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_are_asked_to_leave_are_few_at_a_time() {
        let seats = ConnectionLimit::new("grpc", 1_000, "GW_MAX_CONNECTIONS", WhenFull::Yield);
        let _all: Vec<ConnectionPermit> = (0..1_000).map(|_| seats.take().unwrap()).collect();
        advance(IDLE).await;
        let more: Vec<ConnectionPermit> = std::iter::from_fn(|| seats.take()).take(1_000).collect();
        assert_eq!((more.len(), seats.taken_count()), (LEAVING, 1_000 + LEAVING));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_makes_room_one_more_is_refused_until_a_seat_is_free() {
        let seats = ConnectionLimit::new("grpc", 1, "GW_MAX_CONNECTIONS", WhenFull::Yield);
        let seat = seats.take().unwrap();
        assert!(seats.take().is_none());
        drop(seat);
        assert!(seats.take().is_some());
        assert_eq!(seats.refused(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_are_refused_do_not_look_at_those_that_are_seated() {
        let seats = ConnectionLimit::new("grpc", 1, "GW_MAX_CONNECTIONS", WhenFull::Yield);
        let seat = seats.take().unwrap();
        assert!(seats.take().is_none());
        // A scan would block until this is dropped.
        let busy = seat.activity.busy();
        assert!((0..1_000).all(|_| seats.take().is_none()));
        drop(busy);
    }
}
