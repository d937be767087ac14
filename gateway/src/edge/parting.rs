//! How a server takes its leave: what is in hand is finished, and what its client does not finish is not waited for.
//! Must never know what a call is about.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// What a client has for the rest of its request after the goodbye, and for reading answers after the last of them.
const GRACE: Duration = Duration::from_secs(2);
/// After that: for bytes that are on their way, and calls that crossed our goodbye. Longer than connections linger.
const FLUSH: Duration = Duration::from_millis(1_500);

/// What a server waits for at its end.
pub(super) struct Parting {
    /// Calls being answered, and work that outlives its caller.
    tasks: TaskTracker,
    /// Answers being read.
    answers: TaskTracker,
    /// Requests that are still being sent have had their time.
    hurry: CancellationToken,
}

impl Parting {
    pub(super) fn new(tasks: TaskTracker) -> Parting {
        Parting { tasks, answers: TaskTracker::new(), hurry: CancellationToken::new() }
    }

    /// Counts a call until its answer begins.
    pub(super) fn call(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Counts an answer until it is read.
    pub(super) fn answer(&self) -> TaskTrackerToken {
        self.answers.token()
    }

    /// Cancelled when requests that are still being sent are to be turned away.
    pub(super) fn hurry(&self) -> &CancellationToken {
        &self.hurry
    }

    /// Waits for the goodbye, and then until all is answered, and read where anybody reads.
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
            // Whoever has not read by then will not.
            let _ = timeout(GRACE, self.answers.wait()).await;
            sleep(FLUSH).await;
            if self.tasks.is_empty() {
                return;
            }
        }
    }

    /// Waits until no call is in hand.
    pub(super) async fn worked(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far more than any grace.
    const LIMIT: Duration = Duration::from_secs(10);

    fn parting() -> (Parting, CancellationToken) {
        let drain = CancellationToken::new();
        drain.cancel();
        (Parting::new(TaskTracker::new()), drain)
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_is_not_waited_for() {
        let (parting, drain) = parting();
        let _unread = parting.answer();
        timeout(LIMIT, parting.over(&drain)).await.unwrap();
    }

    #[tokio::test]
    async fn a_call_in_hand_is_waited_for_and_told_to_hurry() {
        let (parting, drain) = parting();
        let call = parting.call();
        let finish = async {
            parting.hurry().cancelled().await;
            sleep(FLUSH).await;
            drop(call);
        };
        tokio::select! {
            biased;
            () = parting.over(&drain) => panic!("the call was not waited for"),
            () = finish => {}
        }
        timeout(LIMIT, parting.over(&drain)).await.unwrap();
    }
}
