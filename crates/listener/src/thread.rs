//! A thread with its own runtime, so that its work slows nothing else down. Must not depend on that work.

use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A thread that runs until its work ends. Dropping it stops it at once.
pub struct Thread {
    abort: CancellationToken,
    handle: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<()>,
}

impl Thread {
    /// Starts a thread for this work.
    ///
    /// # Errors
    ///
    /// The system has no thread, or no file descriptors for its runtime. A panic of the work is logged, and ends the
    /// thread.
    pub fn start(name: &str, work: impl Future<Output = ()> + Send + 'static) -> std::io::Result<Thread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let abort = CancellationToken::new();
        let (end, ended) = oneshot::channel::<()>();
        let run = {
            let abort = abort.clone();
            move || {
                // Dropped last, also by a panic.
                let _end = end;
                // A task like all others: `block_on` would poll this future before them.
                let work = runtime.spawn(work);
                if let Some(Err(error)) = runtime.block_on(abort.run_until_cancelled(work)) {
                    tracing::error!(%error, "a service thread failed");
                }
                // A blocking call that was abandoned must not delay the end.
                runtime.shutdown_background();
            }
        };
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Thread { abort, handle: Some(handle), ended })
    }

    /// Waits until the work has ended, or panicked.
    pub async fn ended(mut self) {
        // The sender never sends; it is only dropped.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.abort.cancel();
        if self.handle.take().is_some_and(|handle| handle.join().is_err()) {
            tracing::error!("a service thread panicked");
        }
    }
}
