//! Workers of a test: each on a thread and a runtime of its own, so that one can be stopped dead
//! while the others go on.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use inventory_worker::Worker;
use inventory_worker::config::Serve;
use tokio::sync::{mpsc, oneshot};

/// A worker on its thread.
pub struct Hand {
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Drain(oneshot::Sender<()>),
    Sequence(oneshot::Sender<u64>),
    Health(oneshot::Sender<SocketAddr>),
    Http(oneshot::Sender<SocketAddr>),
}

impl Hand {
    /// Starts a worker, and returns when it serves.
    pub async fn hire(config: Serve) -> Hand {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (ready, started) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work(config, ready, inbox));
            // Whatever still runs is dropped where it stands.
            runtime.shutdown_background();
        });
        started.await.expect("the worker's thread ended").expect("the worker did not start");
        Hand { orders, thread: Some(thread) }
    }

    /// Ends it where it stands, as kill -9 would: no reply, no acknowledgement, no goodbye.
    pub fn kill(mut self) {
        self.stop();
    }

    /// SIGTERM, and its place stays empty.
    pub async fn leave(&self) {
        let (done, drained) = oneshot::channel();
        let _ = self.orders.send(Order::Drain(done));
        let _ = drained.await;
    }

    /// SIGTERM: it finishes what it has in hand.
    pub async fn drain(mut self) {
        self.leave().await;
        self.stop();
    }

    /// The ledger's last entry that it has applied.
    pub async fn sequence(&self) -> u64 {
        let (tell, told) = oneshot::channel();
        let _ = self.orders.send(Order::Sequence(tell));
        told.await.unwrap_or(0)
    }

    /// Where it says how it is.
    pub async fn health(&self) -> SocketAddr {
        let (tell, told) = oneshot::channel();
        let _ = self.orders.send(Order::Health(tell));
        told.await.expect("a running worker")
    }

    /// Where it has its figures.
    pub async fn http(&self) -> SocketAddr {
        let (tell, told) = oneshot::channel();
        let _ = self.orders.send(Order::Http(tell));
        told.await.expect("a running worker")
    }

    fn stop(&mut self) {
        let (closed, _) = mpsc::unbounded_channel();
        self.orders = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn work(
    config: Serve,
    ready: oneshot::Sender<anyhow::Result<()>>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut worker = match Worker::start(config).await {
        Ok(worker) => Some(worker),
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    while let Some(order) = orders.recv().await {
        match order {
            Order::Sequence(tell) => {
                let _ = tell.send(worker.as_ref().map_or(0, |worker| worker.ledger().stock().sequence()));
            }
            Order::Health(tell) => {
                let _ = worker.as_ref().map(|worker| tell.send(worker.health_addr()));
            }
            Order::Http(tell) => {
                let _ = worker.as_ref().map(|worker| tell.send(worker.http_addr()));
            }
            Order::Drain(done) => {
                if let Some(worker) = worker.take() {
                    worker.drain().await.expect("the worker drains within its limit");
                }
                let _ = done.send(());
            }
        }
    }
}
