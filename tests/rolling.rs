//! Rolling restarts under load: workers and gateways are replaced one after the other, and no call fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::harness::system::{System, until};

const CALLERS: usize = 24;
/// Far longer than any reply takes, and shorter than the attempt timeout after which the gateway would retry.
const LOST: Duration = Duration::from_secs(4);

/// Callers that make calls until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start<F: Future<Output = ()> + Send>(call: impl Fn(usize) -> F + Clone + Send + 'static) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let caller = |_| {
            let (stop, done, call) = (stop.clone(), done.clone(), call.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = done.fetch_add(1, Ordering::Relaxed);
                    call(number).await;
                }
            })
        };
        Load { callers: (0..CALLERS).map(caller).collect(), stop, done }
    }

    /// Waits for this many more calls.
    async fn goes_on(&self, more: usize) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        until("calls go on", async || self.done.load(Ordering::Relaxed) >= goal).await;
    }

    /// Stops the callers. Fails if any call failed.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("no call was lost");
        }
    }
}

#[tokio::test]
async fn workers_are_replaced_and_every_request_is_answered_without_a_repeat() {
    let mut system = System::builder().stock("lamp", 100).workers(2).start().await;
    let nats = system.nats().await;
    let load = Load::start(move |_| {
        let nats = nats.clone();
        async move {
            let request = nats.request("check_inventory", r#"[{"productId":"lamp","quantity":1}]"#.into());
            let reply =
                tokio::time::timeout(LOST, request).await.expect("an answer in time").expect("an answer");
            assert!(reply.payload.starts_with(br#"{"available":true"#), "{reply:?}");
        }
    });
    for _ in 0..8 {
        load.goes_on(500).await;
        system.add_worker().await;
        system.workers.remove(0).drain().await;
    }
    load.goes_on(500).await;
    load.end().await;
}
