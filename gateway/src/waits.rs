//! Nested timeouts of the gateway: the inner one has to expire before the outer one, so that the more specific error is
//! reported. Must not depend on what is waited for.
//!
//! | inner | outer |
//! |---|---|
//! | one append to ORDERS, or one read of it, `orders::waits::RECORD` | an attempt; the budget of a call without a deadline |
//! | one attempt, the route's timeout | all attempts: the budget of a call without a deadline |
//! | the stream guard's detection of a missing stream: two checks and the pauses before them | one attempt |
//! | the answers to a discovery request, `bridge::discovery::WAIT` | the pause between two discovery requests, `DISCOVERY_INTERVAL` |
//! | releasing a reservation, `orders::waits::RELEASE` | the workers' expiry |
//! A call ends before its caller's deadline (`server::call_of`), an attempt no later than its call (`bridge`), and a
//! worker sends its answer before the attempt ends (the workers' `waits`).

use std::time::Duration;

/// Interval between two discovery requests, while all services respond.
pub const DISCOVERY_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use bridge::EARLY;
    use bridge::discovery::WAIT;
    use contract::route;
    use nats::guard;
    use orders::waits::{RECORD, RELEASE};

    use super::*;

    #[test]
    fn each_wait_ends_before_the_one_around_it() {
        let attempt = route::ALL.iter().map(|route| route.timeout).min().unwrap();
        let budget =
            route::ALL.iter().filter(|route| route.retries > 0).map(|route| route.budget()).min().unwrap();
        for (what, inner, outer) in [
            ("the record, an attempt", RECORD, attempt),
            ("an attempt, its call", attempt, budget),
            ("a stream that is gone, an attempt", 2 * guard::PAUSE + Duration::from_secs(1), attempt),
            ("a discovery request, the next one", WAIT, DISCOVERY_INTERVAL),
            ("a withdrawal by a worker, what counts as early", inventory_worker::waits::RETURN, EARLY),
            ("giving back, the expiry", RELEASE, Duration::from_secs(120)),
        ] {
            assert!(inner < outer, "{what}: {inner:?} is not below {outer:?}");
        }
    }
}
