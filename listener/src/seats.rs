//! Seats: how many connections a port may have, and who makes room when there are more. Must never know what they say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use telemetry::{Page, Quota, Source};

use crate::activity::{Activity, Over};

/// What becomes of a connection that finds all seats taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// It is closed at once.
    Refuse,
    /// The one that has waited longest for a request is closed for it. For ports of probes, which have to get in.
    Evict,
}

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
            // Those that were asked to leave have as many descriptors as they had before. Where nobody makes room, nobody
            // is looked at: connections that are turned away must not cost those that are served.
            let evicts = self.0.full == Full::Evict && taken.leaving < self.0.most;
            let Some(activity) = evicts.then(|| taken.oldest()).flatten() else {
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

    pub(crate) fn count(&self, over: Over) {
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
}

impl Seat {
    /// What the connection does.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    pub(crate) fn seats(&self) -> &Seats {
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
    use std::time::Duration;

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
    async fn where_nobody_makes_room_one_more_is_refused_until_a_seat_is_free() {
        let seats = Seats::new("grpc", 1, "MAX_CONNECTIONS", Full::Refuse);
        let seat = seats.take().unwrap();
        assert!(seats.take().is_none());
        drop(seat);
        assert!(seats.take().is_some());
        assert_eq!(seats.refused(), 1);
    }

    #[tokio::test]
    async fn one_that_is_refused_does_not_look_at_those_that_are_seated() {
        let seats = Seats::new("grpc", 1, "MAX_CONNECTIONS", Full::Refuse);
        let seat = seats.take().unwrap();
        // Whoever looked at it would wait until this is dropped.
        let busy = seat.activity.busy();
        let (send, refused) = std::sync::mpsc::channel();
        let others = seats.clone();
        std::thread::spawn(move || send.send(others.take().is_none()));
        assert_eq!(refused.recv_timeout(Duration::from_secs(10)), Ok(true));
        drop(busy);
    }
}
