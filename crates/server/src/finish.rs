//! Work that has begun for a call continues when its caller cancels: it cannot be undone, and its resources are not
//! free before it ends. Must not depend on what the work is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Work that is dropped if its caller cancels before it has begun, and that runs to completion after that.
pub(super) struct Finish<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    begun: Begun,
}

/// Whether something was sent that cannot be undone.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<AtomicBool>);

impl Begun {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T: Send + 'static> Finish<T> {
    pub(super) fn new<F: Future<Output = T> + Send + 'static>(work: impl FnOnce(Begun) -> F) -> Finish<T> {
        let begun = Begun::default();
        Finish { work: Some(Box::pin(work(begun.clone()))), begun }
    }
}

impl<T: Send + 'static> Future for Finish<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let done = work.as_mut().poll(context);
        if done.is_ready() {
            self.work = None;
        }
        done
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        let begun = self.begun.0.load(Ordering::Relaxed);
        // If the thread ends, so does the work.
        if let (true, Some(work), Ok(thread)) =
            (begun, self.work.take(), tokio::runtime::Handle::try_current())
        {
            thread.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_ends_without_its_caller_and_what_has_not_is_dropped() {
        for begins in [true, false] {
            let (end, ended) = oneshot::channel();
            let work = Finish::new(move |begun| async move {
                if begins {
                    begun.set();
                }
                sleep(Duration::from_secs(1)).await;
                let _ = end.send(());
            });
            assert!(timeout(Duration::from_millis(10), work).await.is_err());
            assert_eq!(ended.await.is_ok(), begins);
        }
    }
}
