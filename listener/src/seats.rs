//! Seats: how many connections a port may have, and who makes room when there are more. Must never know what they say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use telemetry::{Page, Quota, Source};
use tokio::time::Instant;

use crate::activity::{Activity, Over};

/// What becomes of a connection that finds all seats taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// It is closed at once, unless one has been idle for some seconds: the one that has been so longest is asked to leave,
    /// in peace.
    Yield,
    /// The one that has waited longest for a request is closed for it. For ports of probes, which have to get in.
    Evict,
}

/// Who has had no call for so long makes room for a newcomer.
const IDLE: Duration = Duration::from_secs(10);
/// Those that are asked to leave at the same time, each with a descriptor.
pub const LEAVING: usize = 64;
/// Between two looks at all connections for such, and how many are remembered of one.
const LOOK: Duration = Duration::from_secs(1);
const REMEMBERED: usize = 256;

/// The seats of a port. Clones share them.
#[derive(Debug, Clone)]
pub struct Seats(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The port's name in figures.
    port: &'static str,
    /// What the log says of the limit: a variable, or that it is fixed.
    limit: &'static str,
    most: usize,
    full: Full,
    taken: Mutex<Taken>,
    refused: AtomicU64,
    evicted: AtomicU64,
    idle: AtomicU64,
    slow: AtomicU64,
    lines: Quota,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    seated: BTreeMap<u64, Arc<Activity>>,
    /// Those that were asked to leave, and have not yet.
    leaving: usize,
    /// Those that were idle when all were looked at last, the most idle last.
    idle: Vec<u64>,
    looked: Option<Instant>,
}

/// One connection's seat; it is free again when this is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    number: u64,
    activity: Arc<Activity>,
}

impl Seats {
    /// So many seats of a port; the log calls their limit by this name.
    pub fn new(port: &'static str, most: u32, limit: &'static str, full: Full) -> Seats {
        Seats(Arc::new(Shared {
            port,
            limit,
            most: most as usize,
            full,
            taken: Mutex::default(),
            refused: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            lines: Quota::default(),
        }))
    }

    /// A seat, if there is one for this connection.
    pub fn take(&self) -> Option<Seat> {
        let mut taken = self.taken();
        if taken.seated.len() >= self.0.most {
            // Those that were asked to leave have as many descriptors as they had before. Where few make room, nobody is
            // looked at for each newcomer: connections that are turned away must not cost those that are served.
            let leaves = match self.0.full {
                Full::Evict if taken.leaving < self.0.most => taken.oldest(),
                Full::Yield if taken.leaving < LEAVING => taken.idlest(),
                Full::Evict | Full::Yield => None,
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
        Some(Seat { seats: self.clone(), number, activity })
    }

    /// How many there are.
    pub fn most(&self) -> usize {
        self.0.most
    }

    /// How many are taken.
    pub fn taken_count(&self) -> usize {
        let taken = self.taken();
        taken.seated.len() + taken.leaving
    }

    /// How many connections found none.
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
                "connections are turned away ({})",
                self.0.limit
            );
        }
    }

    /// Counts a connection whose time was over.
    pub fn count(&self, over: Over) {
        let count = match over {
            Over::Evicted => &self.0.evicted,
            Over::Idle => &self.0.idle,
            Over::Slow => &self.0.slow,
        };
        let closed = count.fetch_add(1, Ordering::Relaxed) + 1;
        if over == Over::Evicted && self.0.lines.take() {
            let (port, limit) = (self.0.port, self.0.most);
            tracing::warn!(
                port,
                limit,
                closed,
                "connections are closed to make room for others ({})",
                self.0.limit
            );
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Seats {
    fn tell(&self, page: &mut Page) {
        let label = [("port", self.0.port)];
        let taken = self.taken_count() as f64;
        page.level("port_connections", "Connections of a port.", &label, taken);
        let help = "Connections that a port may have.";
        page.level("port_connections_limit", help, &label, self.0.most as f64);
        let closed = [
            ("refused", &self.0.refused),
            ("evicted", &self.0.evicted),
            ("idle", &self.0.idle),
            ("slow", &self.0.slow),
        ];
        for (why, count) in closed {
            let label = [("port", self.0.port), ("reason", why)];
            let help = "Connections that were closed: all were taken, one made room, idle, or too slow.";
            page.count("port_connections_closed_total", help, &label, count.load(Ordering::Relaxed));
        }
    }
}

impl Taken {
    /// Takes the seat of the one that makes room first.
    fn oldest(&mut self) -> Option<Arc<Activity>> {
        let oldest =
            self.seated.iter().min_by_key(|(_, activity)| activity.rank()).map(|(number, _)| *number)?;
        self.seated.remove(&oldest)
    }

    /// Takes the seat of the one that has been idle longest.
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

impl Seat {
    /// What the connection does.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Whose seat it is.
    pub fn seats(&self) -> &Seats {
        &self.seats
    }
}

impl Drop for Seat {
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
        let seats = Seats::new("http", 3, "fixed", Full::Evict);
        let mut three = Vec::new();
        for _ in 0..3 {
            three.push(seats.take().unwrap());
            advance(Duration::from_secs(1)).await;
        }
        // The first has a request in hand, which goes on.
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
        let seats = Seats::new("http", 2, "fixed", Full::Evict);
        let all: Vec<Seat> = std::iter::from_fn(|| seats.take()).take(10).collect();
        assert_eq!((all.len(), seats.taken_count(), seats.refused()), (4, 4, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_been_idle_longest_makes_room_and_nobody_else_does() {
        let seats = Seats::new("grpc", 3, "GW_MAX_CONNECTIONS", Full::Yield);
        let mut three = Vec::new();
        for _ in 0..3 {
            three.push(seats.take().unwrap());
            advance(IDLE / 2).await;
        }
        // The first has had a call in hand just now, and one has come on the second since it was seen.
        three[0].activity.seen(true);
        three[1].activity.whole().fetch_add(1, Ordering::Relaxed);
        assert!(seats.take().is_none());
        advance(IDLE / 2).await;
        let newcomer = seats.take().unwrap();
        let asked: Vec<bool> = three.iter().map(|seat| seat.activity.leave.is_cancelled()).collect();
        assert_eq!(asked, [false, false, true]);
        // It was looked at all a moment ago.
        advance(IDLE).await;
        let _second = seats.take().unwrap();
        assert!(three[0].activity.leave.is_cancelled());
        // The first newcomer says nothing either.
        let _third = seats.take().unwrap();
        assert!(newcomer.activity.leave.is_cancelled() && !three[1].activity.leave.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_are_asked_to_leave_are_few_at_a_time() {
        let seats = Seats::new("grpc", 1_000, "GW_MAX_CONNECTIONS", Full::Yield);
        let _all: Vec<Seat> = (0..1_000).map(|_| seats.take().unwrap()).collect();
        advance(IDLE).await;
        let more: Vec<Seat> = std::iter::from_fn(|| seats.take()).take(1_000).collect();
        assert_eq!((more.len(), seats.taken_count()), (LEAVING, 1_000 + LEAVING));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_makes_room_one_more_is_refused_until_a_seat_is_free() {
        let seats = Seats::new("grpc", 1, "GW_MAX_CONNECTIONS", Full::Yield);
        let seat = seats.take().unwrap();
        assert!(seats.take().is_none());
        drop(seat);
        assert!(seats.take().is_some());
        assert_eq!(seats.refused(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_are_refused_do_not_look_at_those_that_are_seated() {
        let seats = Seats::new("grpc", 1, "GW_MAX_CONNECTIONS", Full::Yield);
        let seat = seats.take().unwrap();
        assert!(seats.take().is_none());
        // Whoever looked at it would wait until this is dropped.
        let busy = seat.activity.busy();
        assert!((0..1_000).all(|_| seats.take().is_none()));
        drop(busy);
    }
}
