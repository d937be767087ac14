//! The drain of a server: calls in flight are finished, but it does not wait for clients that do not finish. Must not
//! depend on what a call is about.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Time for a client to send the rest of its request after GOAWAY, and to read responses after the last of them.
const GRACE: Duration = Duration::from_secs(2);
/// Time after that for bytes in transit, and for calls that were sent before the client received GOAWAY. Longer than
/// connections linger.
const FLUSH: Duration = Duration::from_millis(1_500);

/// What a server waits for during a drain.
pub(super) struct Drain {
    /// Calls being answered, and work that outlives its caller.
    tasks: TaskTracker,
    /// Responses being read.
    answers: TaskTracker,
    /// Cancelled when requests that are still being sent are out of time.
    hurry: CancellationToken,
}

impl Drain {
    pub(super) fn new(tasks: TaskTracker) -> Drain {
        Drain { tasks, answers: TaskTracker::new(), hurry: CancellationToken::new() }
    }

    /// Counts a call until its response begins.
    pub(super) fn call(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Counts a response until it is read.
    pub(super) fn answer(&self) -> TaskTrackerToken {
        self.answers.token()
    }

    /// Cancelled when requests that are still being sent have to be refused.
    pub(super) fn hurry(&self) -> &CancellationToken {
        &self.hurry
    }

    /// Waits for the drain to begin, and then until all calls are answered, and read by clients that do read.
    pub(super) async fn over(&self, drain: &CancellationToken) {
        drain.cancelled().await;
        let hurry = async {
            sleep(GRACE).await;
            self.hurry.cancel();
            std::future::pending().await
        };
        tokio::select! {
            () = self.finished() => {}
            () = hurry => {}
        }
    }

    async fn finished(&self) {
        self.answers.close();
        loop {
            self.worked().await;
            // Clients that have not read by then will not.
            let _ = timeout(GRACE, self.answers.wait()).await;
            sleep(FLUSH).await;
            if self.tasks.is_empty() {
                return;
            }
        }
    }

    /// Waits until no call is in flight.
    pub(super) async fn worked(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far more than any grace period.
    const LIMIT: Duration = Duration::from_secs(10);

    fn draining() -> (Drain, CancellationToken) {
        let drain = CancellationToken::new();
        drain.cancel();
        (Drain::new(TaskTracker::new()), drain)
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_is_not_waited_for() {
        let (draining, drain) = draining();
        let _unread = draining.answer();
        timeout(LIMIT, draining.over(&drain)).await.unwrap();
    }

    #[tokio::test]
    async fn a_call_in_hand_is_waited_for_and_told_to_hurry() {
        let (draining, drain) = draining();
        let call = draining.call();
        let finish = async {
            draining.hurry().cancelled().await;
            sleep(FLUSH).await;
            drop(call);
        };
        tokio::select! {
            biased;
            () = draining.over(&drain) => panic!("the call was not waited for"),
            () = finish => {}
        }
        timeout(LIMIT, draining.over(&drain)).await.unwrap();
    }
}
