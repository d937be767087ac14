//! Threads of a gateway, each with its own runtime, which stops when the gateway does. Must not depend on what runs on
//! them.

use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use server::supervisor::Supervisor;

/// Task polls between two polls for I/O events. More than tokio's default of 61, so that under load more is read and
/// written at once.
const TURN: u32 = 255;
/// Stack size of a thread, in bytes: futures are deeply nested in unoptimized builds.
const STACK: usize = 8 << 20;

/// A thread, and a channel that closes when its calls are answered.
pub(super) struct Thread {
    pub(super) handle: Option<JoinHandle<()>>,
    pub(super) served: oneshot::Receiver<()>,
}

/// Joins the threads, and logs panics.
pub(super) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the gateway panicked");
        }
    }
}

/// Runs work on a thread with its own runtime, until `abort` is cancelled.
pub(super) fn spawn(
    name: &str,
    (supervisor, abort): (&Supervisor, CancellationToken),
    work: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<Thread> {
    let work = supervisor.watch(format!("thread {name}"), work);
    let runtime = tokio::runtime::Builder::new_current_thread().event_interval(TURN).enable_all().build()?;
    let (served, wait) = oneshot::channel::<()>();
    let run = move || {
        runtime.block_on(async {
            let all = async {
                work.await;
                drop(served);
                // Other tasks of this thread continue until `abort`.
                std::future::pending::<()>().await;
            };
            abort.run_until_cancelled(all).await
        });
        // A blocking call that was abandoned, such as a DNS look-up, must not delay the exit.
        runtime.shutdown_background();
    };
    let handle = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(run)?;
    Ok(Thread { handle: Some(handle), served: wait })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_blocking_call_that_hangs_does_not_hold_a_thread() {
        let (abort, (began, begins)) = (CancellationToken::new(), std::sync::mpsc::channel());
        let work = async move {
            tokio::task::spawn_blocking(move || {
                began.send(()).unwrap();
                std::thread::sleep(Duration::from_secs(60));
            });
        };
        let supervisor = Supervisor::new(abort.clone());
        let mut thread = spawn("test", (&supervisor, abort.clone()), work).unwrap();
        begins.recv().unwrap();
        let start = Instant::now();
        abort.cancel();
        join(thread.handle.take().into_iter().collect());
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}
