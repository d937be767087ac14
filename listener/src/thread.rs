//! A thread with a runtime of its own, so that what is asked there slows nobody else down. Must never know what is done
//! there.

use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A thread that works until its work ends. Dropped, it ends at once.
pub struct Thread {
    abort: CancellationToken,
    handle: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<()>,
}

impl Thread {
    /// Starts a thread for this work.
    pub fn start(name: &str, work: impl Future<Output = ()> + Send + 'static) -> std::io::Result<Thread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let abort = CancellationToken::new();
        let (end, ended) = oneshot::channel::<()>();
        let run = {
            let abort = abort.clone();
            move || {
                // Dropped last, and by a panic as well.
                let _end = end;
                // A task like all others: what is waited for here would come before them.
                let work = runtime.spawn(work);
                if let Some(Err(error)) = runtime.block_on(abort.run_until_cancelled(work)) {
                    tracing::error!(%error, "the work of a thread failed");
                }
                // A blocking call that was given up must not hold the end up.
                runtime.shutdown_background();
            }
        };
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Thread { abort, handle: Some(handle), ended })
    }

    /// Waits until the work has ended, or panicked.
    pub async fn ended(mut self) {
        // The sender is only ever dropped.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.abort.cancel();
        if self.handle.take().is_some_and(|handle| handle.join().is_err()) {
            tracing::error!("a thread that serves beside calls panicked");
        }
    }
}
