//! Quotas per caller: calls in flight, and calls per second (a token bucket). Must not depend on what a call does.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use admission::budget::CallerShare;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use wire::Failure;

use bridge::share::{Share, ShareKind, Shares, exceeded};

/// Maximum number of callers with an own account: those with calls in flight now or recently. Further callers share
/// accounts.
const CALLERS: usize = 16_384;
/// Accounts shared by further callers. Which one a caller gets cannot be predicted from outside.
const OTHERS: usize = 64;
/// Interval between two sweeps for unused accounts.
const SWEEP: Duration = Duration::from_secs(1);
/// The burst, in seconds of the rate.
const BURST: f64 = 10.0;
/// The retry delay for a caller that has too many calls in flight.
const SHED: Duration = Duration::from_millis(100);

/// The accounts of all callers.
pub(super) struct Quotas {
    most: usize,
    rate: f64,
    known: Mutex<Known>,
    /// Accounts shared by callers without an own one.
    others: Box<[Arc<CallerQuota>]>,
    hasher: RandomState,
}

struct Known {
    accounts: HashMap<Box<str>, Arc<CallerQuota>>,
    swept: Instant,
}

/// One caller's account.
#[derive(Debug)]
pub(super) struct CallerQuota {
    most: usize,
    /// Calls per second; 0: no limit.
    rate: f64,
    shares: Arc<Shares>,
    /// False once its caller has been forgotten.
    current: AtomicBool,
    bucket: Mutex<Bucket>,
    /// Memory that its requests hold.
    pub(super) bytes: Arc<CallerShare>,
}

#[derive(Debug)]
struct Bucket {
    calls: f64,
    filled: Instant,
}

impl Quotas {
    /// Accounts with so many calls in flight and so many per second; rate 0: no limit.
    pub(super) fn new(in_hand: usize, rate: u32) -> Quotas {
        let (now, rate) = (Instant::now(), f64::from(rate));
        let known = Known { accounts: HashMap::new(), swept: now };
        let others = (0..OTHERS).map(|_| Arc::new(CallerQuota::new(in_hand, rate, now))).collect();
        Quotas { most: in_hand, rate, known: Mutex::new(known), others, hasher: RandomState::new() }
    }

    /// The account of a principal.
    pub(super) fn of(&self, principal: &str) -> Arc<CallerQuota> {
        let now = Instant::now();
        let mut known = self.known.lock();
        if let Some(account) = known.accounts.get(principal) {
            return account.clone();
        }
        if known.accounts.len() >= CALLERS && now - known.swept >= SWEEP {
            known.swept = now;
            // A cached token does not keep its account here: it is verified again, and gets the account of that time.
            known.accounts.retain(|_, account| {
                let used = !account.fresh(now);
                account.current.store(used, Ordering::Relaxed);
                used
            });
        }
        if known.accounts.len() >= CALLERS {
            let place = usize::try_from(self.hasher.hash_one(principal)).unwrap_or_default() % OTHERS;
            if let Some(shared) = self.others.get(place) {
                return shared.clone();
            }
        }
        let account = Arc::new(CallerQuota::new(self.most, self.rate, now));
        known.accounts.insert(principal.into(), account.clone());
        account
    }
}

impl CallerQuota {
    fn new(most: usize, rate: f64, now: Instant) -> CallerQuota {
        let bucket = Mutex::new(Bucket { calls: rate * BURST, filled: now });
        let (shares, current) = (Shares::of_caller(), AtomicBool::new(true));
        CallerQuota { most, rate, shares, current, bucket, bytes: Arc::default() }
    }

    /// Begins a call, if the quota allows it.
    pub(super) fn enter(&self, now: Instant) -> Result<Share, Failure> {
        let held = self.shares.take(ShareKind::CALLS, self.most);
        let held = held.ok_or_else(|| exceeded(format!("{} calls in flight per caller", self.most), SHED))?;
        self.pay(now)?;
        Ok(held)
    }

    fn pay(&self, now: Instant) -> Result<(), Failure> {
        if self.rate == 0.0 {
            return Ok(());
        }
        let mut bucket = self.bucket();
        bucket.fill(self.rate, now);
        if bucket.calls < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - bucket.calls) / self.rate);
            return Err(exceeded(format!("{} calls per second per caller", self.rate), wait));
        }
        bucket.calls -= 1.0;
        Ok(())
    }

    /// Whether this is still the account of its caller.
    pub(super) fn current(&self) -> bool {
        self.current.load(Ordering::Relaxed)
    }

    /// Whether forgetting this account has no effect.
    fn fresh(&self, now: Instant) -> bool {
        let mut bucket = self.bucket();
        bucket.fill(self.rate, now);
        self.shares.held(ShareKind::CALLS) == 0 && bucket.calls >= self.rate * BURST
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock()
    }
}

impl Bucket {
    fn fill(&mut self, rate: f64, now: Instant) {
        let time = now.saturating_duration_since(self.filled).as_secs_f64();
        self.calls = (self.calls + time * rate).min(rate * BURST);
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use wire::Reason;
    use wire::failure::Detail;

    use super::*;

    fn wait(failure: &Failure) -> Duration {
        let wait = failure.details.iter().find_map(|detail| match detail {
            Detail::Retry(wait) => Some(*wait),
            _ => None,
        });
        wait.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_gets_the_rate_after_the_burst_and_is_told_when_to_come_back() {
        let accounts = Quotas::new(1_000, 20);
        let begin = |name: &str| accounts.of(name).enter(Instant::now()).map(drop);
        let burst = std::iter::repeat_with(|| begin("ann")).take_while(Result::is_ok).count();
        assert_eq!(burst, 200);
        let refused = begin("ann").unwrap_err();
        assert!(refused.is(Reason::QuotaExceeded));
        assert!(begin("bob").is_ok(), "another caller has an account of his own");
        tokio::time::advance(wait(&refused) - Duration::from_millis(1)).await;
        assert!(begin("ann").is_err());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(begin("ann").is_ok());
        let begun = (0..100).filter(|_| begin("ann").is_ok()).count();
        assert_eq!(begun, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_hand_are_bounded_and_one_more_fits_when_one_ends() {
        let accounts = Quotas::new(3, 0);
        let enter = || accounts.of("ann").enter(Instant::now());
        let mut held: Vec<Share> = (0..3).map(|_| enter().unwrap()).collect();
        assert_eq!(wait(&enter().unwrap_err()), SHED);
        held.pop();
        assert!(enter().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_who_do_nothing_crowd_nobody_out_and_those_who_share_are_not_all_together() {
        let accounts = Quotas::new(10, 0);
        // Cached tokens hold their accounts.
        let idle: Vec<_> = (0..CALLERS).map(|number| accounts.of(&number.to_string())).collect();
        tokio::time::advance(SWEEP).await;
        let honest = accounts.of("honest");
        assert!(!accounts.others.iter().any(|other| Arc::ptr_eq(&honest, other)));
        assert!(idle.iter().all(|account| !account.current()) && honest.current());
        let busy: Vec<_> = (0..CALLERS)
            .map(|number| accounts.of(&number.to_string()).enter(Instant::now()).unwrap())
            .collect();
        tokio::time::advance(SWEEP).await;
        let late: Vec<_> = (0..200).map(|number| accounts.of(&format!("late-{number}"))).collect();
        let fullest =
            late.iter().map(|one| late.iter().filter(|other| Arc::ptr_eq(one, other)).count()).max();
        assert!(fullest.unwrap() < 40, "{fullest:?}");
        drop(busy);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_remembered_callers_is_bounded_and_nobody_gets_more_by_being_forgotten() {
        let accounts = Quotas::new(10, 1);
        let enter = |name: &str| accounts.of(name).enter(Instant::now());
        let used: Vec<Share> = (0..10).map(|_| enter("ann").unwrap()).collect();
        drop(used);
        for number in 0..2 * CALLERS {
            accounts.of(&number.to_string());
        }
        assert_eq!(accounts.known.lock().accounts.len(), CALLERS);
        let shared =
            |account: &Arc<CallerQuota>| accounts.others.iter().any(|other| Arc::ptr_eq(account, other));
        assert!(shared(&accounts.of("one more")));
        tokio::time::advance(SWEEP).await;
        let next = accounts.of("another");
        assert!(!shared(&next));
        assert_eq!(accounts.known.lock().accounts.len(), 2, "ann's bucket is not full yet");
        assert!((0..3).filter(|_| enter("ann").is_ok()).count() <= 1);
    }
}
