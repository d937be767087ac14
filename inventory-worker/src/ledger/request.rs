//! A command on its way to the writer, and its answer on the way back to the thread that waits for it.

use std::time::SystemTime;

use link::streams;
use telemetry::Span;
use telemetry::trace::attribute;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Answer, Denial};
use crate::stock::Command;

/// What the writer says to a command.
pub(super) type Verdict = Result<Answer, Denial>;

/// A command on its way to the writer.
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) deadline: Instant,
    answer: oneshot::Sender<Verdict>,
    /// Where the answer is awaited.
    home: Handle,
    /// The call's span, and when the command was submitted; none where the call is not traced.
    trace: Option<(Span, SystemTime)>,
}

impl Request {
    /// A command of the task that calls this, for a call with this span; and where its answer comes.
    pub(super) fn new(
        command: Command,
        deadline: Instant,
        span: &Span,
    ) -> (Request, oneshot::Receiver<Verdict>) {
        let (answer, answered) = oneshot::channel();
        let trace = span.traced().then(|| (span.clone(), SystemTime::now()));
        (Request { command, deadline, answer, home: Handle::current(), trace }, answered)
    }

    /// Whether nobody waits any more.
    pub(super) fn over(&self, now: Instant) -> bool {
        self.deadline <= now || self.answer.is_closed()
    }

    /// Notes the two parts of a traced command's time: its wait for the batch, and the batch's commit.
    pub(super) fn trace(&self, begun: SystemTime, together: usize) {
        let Some((span, since)) = &self.trace else { return };
        let now = SystemTime::now();
        span.past("wait for the ledger", *since, begun, Vec::new());
        let batch = i64::try_from(together).unwrap_or(i64::MAX);
        let attributes = vec![
            attribute("messaging.system", "nats"),
            attribute("messaging.destination.name", streams::LEDGER_SUBJECT),
            attribute("messaging.batch.message_count", batch),
        ];
        span.past("append to the ledger", begun, now, attributes);
    }
}

/// Answers commands. Those of another runtime are handed to it as one task: waking its thread is a system call, and a
/// thread that is woken for each answer by itself writes each reply by itself.
pub(super) fn answer(answers: impl IntoIterator<Item = (Request, Verdict)>) {
    let here = Handle::current().id();
    let mut away: Vec<(Handle, Vec<_>)> = Vec::new();
    for (Request { answer, home, .. }, verdict) in answers {
        if home.id() == here {
            // An error says that nobody waits for it.
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
        runtime.block_on(async { Request::new(Command::CatchUp, Instant::now(), &Span::default()) })
    }

    #[test]
    fn a_batch_is_answered_on_the_runtimes_that_wait_and_each_is_woken_once() {
        let [here, there] = [(); 2].map(|()| Builder::new_current_thread().build().unwrap());
        let (requests, answers): (Vec<_>, Vec<_>) = [&there, &here, &there].map(ask).into_iter().unzip();
        here.block_on(async { answer(requests.into_iter().map(|request| (request, Ok(Answer::Done)))) });
        assert_eq!(there.metrics().num_alive_tasks(), 1);
        for (runtime, answered) in [&there, &here, &there].into_iter().zip(answers) {
            assert!(matches!(runtime.block_on(answered), Ok(Ok(Answer::Done))));
        }
    }
}
