//! Threads of a gateway: each with a runtime of its own, that ends when everything has to. Must never know what runs on them.

use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Polls of tasks between two looks for what came over sockets. More than the library's 61, so that under load more is
/// read and written at once.
const TURN: u32 = 255;
/// Bytes of a thread's stack: futures are deep in builds that are not optimized.
const STACK: usize = 8 << 20;

/// A thread, and the channel that closes when its calls are answered.
pub(super) struct Thread {
    pub(super) handle: Option<JoinHandle<()>>,
    pub(super) served: oneshot::Receiver<()>,
}

/// Waits for their ends.
pub(super) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the gateway panicked");
        }
    }
}

/// Runs work on a thread with a runtime of its own, until it ends or all has to.
pub(super) fn spawn(
    name: &str,
    abort: CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<Thread> {
    let runtime = tokio::runtime::Builder::new_current_thread().event_interval(TURN).enable_all().build()?;
    let (served, wait) = oneshot::channel::<()>();
    let run = move || {
        runtime.block_on(async {
            let all = async {
                work.await;
                drop(served);
                // What else runs here goes on until the end.
                std::future::pending::<()>().await;
            };
            abort.run_until_cancelled(all).await
        });
        // A blocking call that was given up, such as a look-up of a name, must not hold the end up.
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
        let mut thread = spawn("test", abort.clone(), work).unwrap();
        begins.recv().unwrap();
        let start = Instant::now();
        abort.cancel();
        join(thread.handle.take().into_iter().collect());
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}
