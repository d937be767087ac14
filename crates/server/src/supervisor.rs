//! Supervision of background tasks: one that panics, or ends although the gateway is not draining, is a failure of the
//! whole gateway. Must not depend on what a task does.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The background task whose end is a failure of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskFailure {
    /// It returned, although it must run as long as the gateway.
    #[error("the background task \"{0}\" ended while the gateway was running")]
    Ended(Arc<str>),
    /// It panicked, with this message.
    #[error("the background task \"{0}\" panicked: {1}")]
    Panicked(Arc<str>, String),
}

/// The supervisor of a gateway's background tasks. Clones share it.
#[derive(Debug, Clone)]
pub struct Supervisor {
    /// The first failure.
    failed: Arc<watch::Sender<Option<TaskFailure>>>,
    /// From then on, tasks may end.
    drain: CancellationToken,
    /// The faults that tests inject.
    #[cfg(any(test, feature = "faults"))]
    pub faults: Arc<fault::Faults>,
}

impl Supervisor {
    /// A supervisor whose tasks may end once `drain` is cancelled.
    pub fn new(drain: CancellationToken) -> Supervisor {
        Supervisor {
            failed: Arc::new(watch::Sender::new(None)),
            drain,
            #[cfg(any(test, feature = "faults"))]
            faults: Arc::default(),
        }
    }

    /// Supervises this work. Dropping it before its end is no failure.
    pub fn watch<T, W>(&self, task: T, work: W) -> impl Future<Output = ()> + Send + use<T, W>
    where
        T: Into<Arc<str>>,
        W: Future<Output = ()> + Send,
    {
        let (supervisor, task): (_, Arc<str>) = (self.clone(), task.into());
        #[cfg(any(test, feature = "faults"))]
        let work = self.faults.around(task.clone(), work);
        async move {
            // After a panic nothing uses the state of the work any more: the process ends.
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(()) if supervisor.drain.is_cancelled() => {}
                Ok(()) => supervisor.report(TaskFailure::Ended(task)),
                Err(panic) => supervisor.report(TaskFailure::Panicked(task, message(&*panic))),
            }
        }
    }

    /// Runs this work as a task of the current runtime.
    pub fn spawn(&self, task: impl Into<Arc<str>>, work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.watch::<Arc<str>, _>(task.into(), work));
    }

    /// Waits until a task has failed.
    pub async fn failed(&self) -> TaskFailure {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await.ok().and_then(|failed| failed.clone()) {
            Some(failure) => failure,
            // `self` owns the sender.
            None => std::future::pending().await,
        }
    }

    /// The first failure, if a task has failed.
    pub fn failure(&self) -> Option<TaskFailure> {
        self.failed.borrow().clone()
    }

    fn report(&self, failure: TaskFailure) {
        self.failed.send_if_modified(|first| match first {
            Some(_) => false,
            None => {
                *first = Some(failure);
                true
            }
        });
    }
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// Faults that tests inject into running tasks.
#[cfg(any(test, feature = "faults"))]
pub mod fault {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::sync::watch;

    /// How a task ends.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Fault {
        /// It panics.
        Panic,
        /// It returns.
        Return,
    }

    /// The fault to inject, and the tasks into which one can be injected.
    #[derive(Debug, Default)]
    pub struct Faults {
        tasks: Mutex<BTreeSet<Arc<str>>>,
        wanted: watch::Sender<Option<(Arc<str>, Fault)>>,
    }

    impl Faults {
        /// The supervised tasks.
        pub fn tasks(&self) -> BTreeSet<Arc<str>> {
            self.tasks.lock().clone()
        }

        /// Makes this task end.
        pub fn inject(&self, task: &str, fault: Fault) {
            self.wanted.send_replace(Some((task.into(), fault)));
        }

        pub(super) fn around<W>(&self, task: Arc<str>, work: W) -> impl Future<Output = ()> + Send + use<W>
        where
            W: Future<Output = ()> + Send,
        {
            self.tasks.lock().insert(task.clone());
            let mut wanted = self.wanted.subscribe();
            async move {
                let asked = async {
                    let of_this = |wanted: &Option<(Arc<str>, Fault)>| {
                        wanted.as_ref().is_some_and(|(of, _)| *of == task)
                    };
                    match wanted.wait_for(of_this).await.ok().and_then(|wanted| wanted.clone()) {
                        Some((_, fault)) => fault,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    fault = asked => assert_eq!(fault, Fault::Return, "injected"),
                    () = work => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn the_first_task_that_fails_is_the_one_that_is_reported() {
        let supervisor = Supervisor::new(CancellationToken::new());
        assert_eq!(supervisor.failure(), None);
        supervisor.watch("one", async { panic!("number {}", 1) }).await;
        supervisor.watch("two", ready(())).await;
        let failure = supervisor.failed().await;
        assert_eq!(failure.to_string(), "the background task \"one\" panicked: number 1");
        assert_eq!(supervisor.failure(), Some(failure));
    }

    #[tokio::test]
    async fn a_task_that_ends_early_has_failed_and_one_that_is_dropped_has_not() {
        let supervisor = Supervisor::new(CancellationToken::new());
        assert_eq!(supervisor.watch("dropped", pending()).now_or_never(), None);
        assert_eq!(supervisor.failure(), None);
        supervisor.spawn("ended", ready(()));
        assert_eq!(supervisor.failed().await, TaskFailure::Ended("ended".into()));
    }

    #[tokio::test]
    async fn during_a_drain_tasks_may_end_and_must_not_panic() {
        let drain = CancellationToken::new();
        let supervisor = Supervisor::new(drain.clone());
        drain.cancel();
        supervisor.watch("ended", ready(())).await;
        assert_eq!(supervisor.failure(), None);
        supervisor.watch("panicked", async { panic!("no") }).await;
        assert_eq!(supervisor.failure(), Some(TaskFailure::Panicked("panicked".into(), "no".to_owned())));
    }
}
