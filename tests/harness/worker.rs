//! Workers of a test: each has its own thread and runtime, so that one can be killed while the others go on.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use inventory_worker::Worker;
use inventory_worker::config::Serve;
use tokio::sync::{mpsc, oneshot};

use crate::harness::http::get;

/// A worker on its thread.
pub struct WorkerThread {
    controls: mpsc::UnboundedSender<Control>,
    thread: Option<JoinHandle<()>>,
}

enum Control {
    Drain(oneshot::Sender<()>),
    Sequence(oneshot::Sender<u64>),
    Health(oneshot::Sender<SocketAddr>),
    Http(oneshot::Sender<SocketAddr>),
}

impl WorkerThread {
    /// Starts a worker, and returns when it serves.
    pub async fn start(config: Serve) -> WorkerThread {
        let (controls, inbox) = mpsc::unbounded_channel();
        let (ready, started) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work(config, ready, inbox));
            // Tasks that still run are dropped.
            runtime.shutdown_background();
        });
        started.await.expect("the worker's thread ended").expect("the worker did not start");
        WorkerThread { controls, thread: Some(thread) }
    }

    /// Stops it as SIGKILL would: no reply, no acknowledgement, no drain.
    pub fn kill(mut self) {
        self.stop();
    }

    /// Drains it as SIGTERM would; it stays in the list of workers.
    pub async fn drain_in_place(&self) {
        let (done, drained) = oneshot::channel();
        let _ = self.controls.send(Control::Drain(done));
        let _ = drained.await;
    }

    /// Drains it as SIGTERM would: it finishes its requests, and stops.
    pub async fn drain(mut self) {
        self.drain_in_place().await;
        self.stop();
    }

    /// The sequence of the last ledger entry that it has applied.
    pub async fn sequence(&self) -> u64 {
        let (tell, told) = oneshot::channel();
        let _ = self.controls.send(Control::Sequence(tell));
        told.await.unwrap_or(0)
    }

    /// Its health port.
    pub async fn health(&self) -> SocketAddr {
        let (tell, told) = oneshot::channel();
        let _ = self.controls.send(Control::Health(tell));
        told.await.expect("a running worker")
    }

    /// Its HTTP port.
    pub async fn http(&self) -> SocketAddr {
        let (tell, told) = oneshot::channel();
        let _ = self.controls.send(Control::Http(tell));
        told.await.expect("a running worker")
    }

    /// The requests that it has taken and not answered.
    pub async fn in_flight(&self) -> usize {
        let page = get(self.http().await, "/metrics").await;
        let value = page.lines().find_map(|line| line.strip_prefix("worker_requests_in_hand "));
        value.expect("the metric").parse().unwrap()
    }

    fn stop(&mut self) {
        let (closed, _) = mpsc::unbounded_channel();
        self.controls = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn work(
    config: Serve,
    ready: oneshot::Sender<anyhow::Result<()>>,
    mut controls: mpsc::UnboundedReceiver<Control>,
) {
    let mut worker = match Worker::start(config).await {
        Ok(worker) => Some(worker),
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    while let Some(control) = controls.recv().await {
        match control {
            Control::Sequence(tell) => {
                let _ = tell.send(worker.as_ref().map_or(0, |worker| worker.ledger().stock().sequence()));
            }
            Control::Health(tell) => {
                let _ = worker.as_ref().map(|worker| tell.send(worker.health_addr()));
            }
            Control::Http(tell) => {
                let _ = worker.as_ref().map(|worker| tell.send(worker.http_addr()));
            }
            Control::Drain(done) => {
                if let Some(worker) = worker.take() {
                    worker.drain().await.expect("the worker drains within its limit");
                }
                let _ = done.send(());
            }
        }
    }
}
