//! How long each wait of the gateway may take, where another one is around it: the inner one has to end first, so that what
//! is known inside is told. Must never know what is waited for.
//!
//! | inner | outer |
//! |---|---|
//! | one append to ORDERS, or one read of it, `RECORD` | an attempt of any route; the time of a call whose caller sets none |
//! | one attempt, the route's timeout | the time of all of them, which is a call's if its caller sets none |
//! | the guard's finding that a stream is gone: two looks and the pauses before them | one attempt |
//! | the answers of services to a survey, `SURVEY` | the pause between two surveys, `SURVEYS` |
//! | giving a reservation back, `RELEASE` | the workers' expiry |
//!
//! A call ends before its caller's deadline (`edge::accept`), an attempt no later than its call (`bridge`), and a worker's
//! answer leaves before its attempt ends: the workers' `waits`.

use std::time::Duration;

/// One append or read of the record: longer than any answer of a healthy store, shorter than most deadlines.
pub const RECORD: Duration = Duration::from_secs(2);
/// How long a reservation that is of no more use is offered back. After that the workers' expiry frees it.
pub const RELEASE: Duration = Duration::from_secs(10);
/// How long the answers to a survey are collected.
pub const SURVEY: Duration = Duration::from_millis(300);
/// Between two surveys, while all is there.
pub const SURVEYS: Duration = Duration::from_secs(2);
/// A request that is refused as too late with more than this left was refused wrongly. A service answers as late as the way
/// back allows: the workers, 200 ms (`RETURN`) before the end.
pub const EARLY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use contract::route;
    use link::guard;

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
            ("a survey, the next one", SURVEY, SURVEYS),
            ("a withdrawal by a worker, what counts as early", inventory_worker::waits::RETURN, EARLY),
            ("giving back, the expiry", RELEASE, Duration::from_secs(120)),
        ] {
            assert!(inner < outer, "{what}: {inner:?} is not below {outer:?}");
        }
    }
}
