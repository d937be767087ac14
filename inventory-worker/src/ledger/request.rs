//! Carries a command to the writer, and its answer back to the thread that waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use telemetry::Span;
use telemetry::trace::attribute;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Decision, Denial};
use crate::stock::Command;

/// The writer's answer to a command.
pub(super) type Verdict = Result<Decision, Denial>;

/// The state of a command: only one of the two sides changes it from waiting, so that both agree.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU8);

const WAITS: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Progress {
    /// Whether it may begin, or has begun.
    fn begin(&self) -> bool {
        let moved = self.0.compare_exchange(WAITS, BEGUN, Ordering::AcqRel, Ordering::Acquire);
        moved.map_or_else(|now| now == BEGUN, |_| true)
    }

    /// Withdraws it. `false` if it has begun: then its outcome is unknown.
    pub(super) fn withdraw(&self) -> bool {
        self.0.compare_exchange(WAITS, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// A command for the writer.
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) deadline: Instant,
    progress: Arc<Progress>,
    answer: oneshot::Sender<Verdict>,
    /// Where the answer is awaited.
    home: Handle,
    /// The call's span, and when the command was submitted; none if the call is not traced.
    trace: Option<(Span, SystemTime)>,
}

impl Request {
    /// A command of the calling task, for a call with this span; returns its progress and the receiver of its answer.
    pub(super) fn new(
        command: Command,
        deadline: Instant,
        span: &Span,
    ) -> (Request, Arc<Progress>, oneshot::Receiver<Verdict>) {
        let (answer, answered) = oneshot::channel();
        let progress = Arc::new(Progress::default());
        let trace = span.traced().then(|| (span.clone(), SystemTime::now()));
        let home = Handle::current();
        let request = Request { command, deadline, progress: progress.clone(), answer, home, trace };
        (request, progress, answered)
    }

    /// Whether to execute it: its caller still waits.
    pub(super) fn begin(&self, now: Instant) -> bool {
        self.deadline > now && !self.answer.is_closed() && self.progress.begin()
    }

    /// Records two spans of a traced command: its wait for the batch, and the batch's commit.
    pub(super) fn trace(&self, begun: SystemTime, together: usize) {
        let Some((span, since)) = &self.trace else { return };
        let now = SystemTime::now();
        span.past("wait for the ledger", *since, begun, Vec::new());
        let batch = i64::try_from(together).unwrap_or(i64::MAX);
        let attributes = vec![
            attribute("messaging.system", "nats"),
            attribute("messaging.destination.name", order_streams::LEDGER_SUBJECT),
            attribute("messaging.batch.message_count", batch),
        ];
        span.past("append to the ledger", begun, now, attributes);
    }
}

/// Answers commands. Those of another runtime are handed to it as one task: waking its thread is a system call, and a
/// thread that is woken for each answer writes each reply separately.
pub(super) fn answer(answers: impl IntoIterator<Item = (Request, Verdict)>) {
    let here = Handle::current().id();
    let mut away: Vec<(Handle, Vec<_>)> = Vec::new();
    for (Request { answer, home, .. }, verdict) in answers {
        if home.id() == here {
            // An error means that nobody waits for it.
            let _ = answer.send(verdict);
        } else if let Some((_, answers)) = away.iter_mut().find(|(other, _)| other.id() == home.id()) {
            answers.push((answer, verdict));
        } else {
            away.push((home, vec![(answer, verdict)]));
        }
    }
    for (home, answers) in away {
        home.spawn(async move {
            for (answer, verdict) in answers {
                let _ = answer.send(verdict);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn ask(runtime: &Runtime) -> (Request, oneshot::Receiver<Verdict>) {
        runtime.block_on(async {
            let (request, _, answered) = Request::new(Command::CatchUp, Instant::now(), &Span::default());
            (request, answered)
        })
    }

    #[test]
    fn a_command_is_begun_or_withdrawn_and_never_both() {
        let (begun, withdrawn) = (Progress::default(), Progress::default());
        assert!(begun.begin() && begun.begin() && !begun.withdraw());
        assert!(withdrawn.withdraw() && !withdrawn.begin());
    }

    #[test]
    fn a_batch_is_answered_on_the_runtimes_that_wait_and_each_is_woken_once() {
        let [here, there] = [(); 2].map(|()| Builder::new_current_thread().build().unwrap());
        let (requests, answers): (Vec<_>, Vec<_>) = [&there, &here, &there].map(ask).into_iter().unzip();
        here.block_on(async { answer(requests.into_iter().map(|request| (request, Ok(Decision::Done)))) });
        assert_eq!(there.metrics().num_alive_tasks(), 1);
        for (runtime, answered) in [&there, &here, &there].into_iter().zip(answers) {
            assert!(matches!(runtime.block_on(answered), Ok(Ok(Decision::Done))));
        }
    }
}
