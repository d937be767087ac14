//! A system to measure: nats-server, workers and a gateway as separate processes, with products in stock. Must not
//! depend on what is measured.

use std::path::PathBuf;

use anyhow::anyhow;
use inventory_worker::config::Serve;
use inventory_worker::ledger::Ledger;
use inventory_worker::stock::Command;
use local_nats::{Options, Server, spare_port};
use tempfile::TempDir;
use tokio::time::{Duration, Instant};

use crate::load::{Load, product};
use crate::process::{Process, serves};

/// Units of every product: enough for every order.
const STOCK: u32 = 1_000_000_000;
const CHUNK: usize = 5_000;
const LIMIT: Duration = Duration::from_secs(60);
/// The service that has to be SERVING before measurements.
const ORDERS: &str = "orders.v1.OrderService";

/// A running system. Killed when dropped.
pub(crate) struct Deployment {
    pub(crate) nats: Server,
    pub(crate) workers: Vec<Process>,
    pub(crate) gateway: Process,
    pub(crate) grpc: u16,
    logs: TempDir,
}

impl Deployment {
    /// Starts a system with one worker and this many products. `config` goes to nats-server.
    pub(crate) async fn open(products: usize, config: &str) -> anyhow::Result<Deployment> {
        let nats = nats(config).await?;
        stock(&nats, products).await?;
        Deployment::on(nats).await
    }

    /// Starts a worker and a gateway on this server.
    pub(crate) async fn on(nats: Server) -> anyhow::Result<Deployment> {
        Deployment::with(nats, &[]).await
    }

    /// The same, with more flags for both.
    pub(crate) async fn with(nats: Server, more: &[&str]) -> anyhow::Result<Deployment> {
        let logs = tempfile::tempdir()?;
        let worker = worker(&nats, more, logs.path().join("worker-0")).await?;
        let (gateway, grpc) = gateway(&nats, more, logs.path().join("gateway")).await?;
        Ok(Deployment { nats, workers: vec![worker], gateway, grpc, logs })
    }

    /// Starts another worker.
    pub(crate) async fn hire(&mut self) -> anyhow::Result<()> {
        let log = self.logs.path().join(format!("worker-{}", self.workers.len()));
        self.workers.push(worker(&self.nats, &[], log).await?);
        Ok(())
    }

    /// Kills the first worker, and starts another in its place.
    pub(crate) async fn rehire(&mut self) -> anyhow::Result<()> {
        self.workers.clear();
        self.hire().await
    }

    /// The URL of the gRPC port.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// The load, which also measures the processes of this system.
    pub(crate) fn watched(&self, load: Load) -> anyhow::Result<Load> {
        let mut watch =
            vec![("gateway".to_owned(), self.gateway.pid()?), ("nats-server".to_owned(), self.nats.pid())];
        for (number, worker) in self.workers.iter().enumerate() {
            watch.push((format!("worker {number}"), worker.pid()?));
        }
        Ok(Load { watch, ..load })
    }

    /// A temporary file of the run.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.logs.path().join(name)
    }
}

/// A nats-server with JetStream.
pub(crate) async fn nats(config: &str) -> anyhow::Result<Server> {
    let options = Options { config: Some(config.to_owned()), ..Options::default() };
    Ok(tokio::task::spawn_blocking(move || Server::with(options)).await??)
}

/// Sets the stock of this many products, without a worker.
pub(crate) async fn stock(nats: &Server, products: usize) -> anyhow::Result<()> {
    let (_link, ledger) = inventory_worker::open(&Serve::at(&nats.url()).nats, 512).await?;
    fill(&ledger, products).await
}

/// Starts a worker.
pub(crate) async fn worker(nats: &Server, more: &[&str], log: PathBuf) -> anyhow::Result<Process> {
    let health = spare_port()?;
    let worker = Process::worker(&nats.url(), health, 0, more, &log)?;
    serves(health, "").await?;
    Ok(worker)
}

/// Starts a gateway. Returns it and its gRPC port.
pub(crate) async fn gateway(nats: &Server, more: &[&str], log: PathBuf) -> anyhow::Result<(Process, u16)> {
    let [grpc, http] = [spare_port()?, spare_port()?];
    let gateway = Process::gateway(&nats.url(), grpc, http, more, &log)?;
    serves(grpc, ORDERS).await?;
    Ok((gateway, grpc))
}

/// Sets the stock of this many products in the ledger.
pub(crate) async fn fill(ledger: &Ledger, products: usize) -> anyhow::Result<()> {
    let names: Vec<usize> = (0..products).collect();
    for chunk in names.chunks(CHUNK) {
        let counted = chunk.iter().map(|number| (product(*number).into(), STOCK)).collect();
        submit(ledger, Command::Count(counted)).await?;
    }
    Ok(())
}

/// Submits a command to the ledger.
pub(crate) async fn submit(ledger: &Ledger, command: Command) -> anyhow::Result<()> {
    ledger.submit(command, Instant::now() + LIMIT).await.map(drop).map_err(|denial| anyhow!("{denial:?}"))
}
