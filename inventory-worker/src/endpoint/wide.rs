//! Wide requests (with many lines) are handled one after the other, with pauses between, so that a small request waits
//! for at most one of them, and mostly for none. Must not depend on the content of requests.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout_at};
use wire::{Delivered, Failure, Reason};

/// Requests with more lines than this are wide.
const LINES: usize = 64;
/// Wide requests that may wait or run; one more is refused at once.
const HERE: usize = 32;
/// After a wide request there is a pause of so many times its duration: those of a few ms get a sixteenth of the time,
/// so that few small requests meet one. (With a quarter, one call in a hundred took four times as long.)
const PAUSE: u32 = 15;
/// The longest pause: a request that waited for the storage does not predict the next one.
const LONGEST: Duration = Duration::from_millis(60);

/// The queue of wide requests.
pub struct Wide {
    here: Semaphore,
    turn: Semaphore,
    /// When the next may run.
    next: Mutex<Instant>,
}

/// A turn, if one is needed. Released on drop.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _held: Option<WidePermit<'a>>,
}

#[derive(Debug)]
struct WidePermit<'a> {
    next: &'a Mutex<Instant>,
    begun: Instant,
    _permits: (SemaphorePermit<'a>, SemaphorePermit<'a>),
}

impl Drop for WidePermit<'_> {
    fn drop(&mut self) {
        let pause = (PAUSE * self.begun.elapsed()).min(LONGEST);
        *self.next.lock() = Instant::now() + pause;
    }
}

impl Default for Wide {
    fn default() -> Wide {
        Wide { here: Semaphore::new(HERE), turn: Semaphore::new(1), next: Mutex::new(Instant::now()) }
    }
}

impl Wide {
    /// Waits until a request of so many lines may run.
    pub(crate) async fn turn(&self, lines: usize, deadline: Instant) -> Result<Turn<'_>, Failure> {
        if lines <= LINES {
            return Ok(Turn { _held: None });
        }
        let full = |_| {
            let limit = format!("limit of {HERE} concurrent requests with more than {LINES} lines reached");
            Failure::overloaded("this worker", &limit, nats::failure::RETRY)
        };
        let late = || {
            let text = "the deadline passed while other requests with many lines ran";
            Failure::new(Reason::Timeout, text).delivered(Delivered::No)
        };
        let here = self.here.try_acquire().map_err(full)?;
        // Neither is ever closed.
        let turn =
            timeout_at(deadline, self.turn.acquire()).await.map_err(|_| late())?.map_err(|_| late())?;
        let next = *self.next.lock();
        if next > Instant::now() {
            timeout_at(deadline, sleep_until(next)).await.map_err(|_| late())?;
        }
        let held = WidePermit { next: &self.next, begun: Instant::now(), _permits: (here, turn) };
        Ok(Turn { _held: Some(held) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test]
    async fn one_wide_request_goes_on_at_a_time_and_small_ones_pass() {
        let (wide, soon) = (Wide::default(), Instant::now() + Duration::from_millis(20));
        let first = wide.turn(1_000, soon).await.unwrap();
        assert_eq!(wide.turn(65, soon).await.unwrap_err().reason, "TIMEOUT");
        for _ in 0..3 {
            wide.turn(64, soon).await.unwrap();
        }
        drop(first);
        wide.turn(65, Instant::now() + Duration::from_secs(9)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_wide_request_there_is_a_long_pause_and_small_ones_pass() {
        let (wide, late) = (Wide::default(), Instant::now() + Duration::from_secs(60));
        for (took, pause) in [(2, 30), (5_000, 60)] {
            let turn = wide.turn(1_000, late).await.unwrap();
            advance(Duration::from_millis(took)).await;
            drop(turn);
            let ended = Instant::now();
            wide.turn(64, late).await.unwrap();
            assert_eq!(ended.elapsed(), Duration::ZERO);
            let soon = ended + Duration::from_millis(pause / 2);
            assert_eq!(wide.turn(1_000, soon).await.unwrap_err().reason, "TIMEOUT");
            wide.turn(1_000, late).await.unwrap();
            let waited = ended.elapsed().as_millis() as u64;
            assert!((pause..=pause + 2).contains(&waited), "{took}: {waited}");
        }
    }

    #[tokio::test]
    async fn so_many_wait_and_one_more_is_refused_at_once() {
        let (wide, late) = (Wide::default(), Instant::now() + Duration::from_secs(60));
        let waiting: Vec<_> = (0..HERE).map(|_| Box::pin(wide.turn(1_000, late))).collect();
        let mut held = Vec::new();
        for mut turn in waiting {
            // Looked at once: the first has its turn, the others wait.
            match futures_util::poll!(&mut turn) {
                std::task::Poll::Ready(turn) => held.push((Some(turn.unwrap()), None)),
                std::task::Poll::Pending => held.push((None, Some(turn))),
            }
        }
        assert_eq!(held.iter().filter(|(turn, _)| turn.is_some()).count(), 1);
        assert_eq!(wide.turn(1_000, late).await.unwrap_err().reason, "OVERLOADED");
    }
}
