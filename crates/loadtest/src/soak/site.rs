//! The system of a soak: a cluster, gateways, workers, and a proxy on every connection between them. Injects faults and
//! heals them. Must not depend on the load.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use local_nats::{Cluster, Routes, Server, spare_port};
use nats::{Connection, Options};
use rustix::process::Signal;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::leader;
use super::plan::{Fault, Kind, Size, Target};
use super::proxy::{Mode, Proxy};
use crate::process::{Process, serves};
use crate::usage::figure;

/// How long a graceful stop may take: the drain's limit, and some more for a busy machine.
const END: Duration = Duration::from_secs(30);
const HEALTHY: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);
/// Delay of a connection, in each direction.
const DELAY: Duration = Duration::from_millis(120);

/// What to start.
pub(crate) struct Setup<'a> {
    pub(crate) size: Size,
    /// Folder for the logs.
    pub(crate) logs: &'a Path,
    /// Additional lines of each node's configuration.
    pub(crate) nats: &'a str,
    /// Additional options of each worker.
    pub(crate) worker: &'a [&'a str],
}

/// A gateway or a worker as its callers and probes reach it.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) target: Target,
    /// The gRPC port; a worker's serves health only.
    pub(crate) port: u16,
    pub(crate) http: u16,
}

/// A process and its proxies to the nodes.
struct Part {
    process: Process,
    links: Vec<Proxy>,
    /// Its gRPC port.
    port: u16,
    /// Its HTTP port.
    http: u16,
}

/// A process: name, resident memory in bytes, open files, and tasks.
pub(crate) type Weight = (String, u64, usize, usize);

/// The system.
pub(crate) struct Site {
    cluster: Arc<Mutex<Cluster>>,
    /// `routes[a][b]`: proxy from node a to node b.
    routes: Vec<Vec<Option<Proxy>>>,
    gateways: Vec<Part>,
    workers: Vec<Part>,
    /// A proxy in front of each gateway.
    proxies: Vec<Proxy>,
    logs: PathBuf,
    /// The soak's own connection to NATS, without a proxy.
    link: Connection,
}

impl Site {
    /// Starts everything, and waits until it serves.
    pub(crate) async fn open(setup: &Setup<'_>) -> anyhow::Result<Site> {
        let size = setup.size;
        let mut ports = Routes::direct(size.nodes)?;
        let mut routes = Vec::new();
        for from in 0..size.nodes {
            let mut row = Vec::new();
            for to in 0..size.nodes {
                let proxy = if from == to { None } else { Some(Proxy::to(ports.listen[to]).await?) };
                ports.dial[from][to] = proxy.as_ref().map_or(ports.listen[to], Proxy::port);
                row.push(proxy);
            }
            routes.push(row);
        }
        let lines = setup.nats.to_owned();
        let cluster = tokio::task::spawn_blocking(move || Cluster::with(&ports, &lines)).await??;
        let link = Connection::connect(&Options::at(cluster.urls()), "soak").await?;
        let nodes: Vec<u16> = cluster.nodes().iter().map(Server::port).collect();
        let mut site = Site {
            cluster: Arc::new(Mutex::new(cluster)),
            routes,
            gateways: Vec::new(),
            workers: Vec::new(),
            proxies: Vec::new(),
            logs: setup.logs.to_owned(),
            link,
        };
        for _ in 0..size.workers {
            site.hire(&nodes, setup.worker).await?;
        }
        for _ in 0..size.gateways {
            site.open_gateway(&nodes, &[]).await?;
        }
        for gateway in &site.gateways {
            serves(gateway.port, "orders.v1.OrderService").await?;
        }
        Ok(site)
    }

    async fn hire(&mut self, nodes: &[u16], options: &[&str]) -> anyhow::Result<()> {
        let (links, url) = links(nodes).await?;
        let (port, http) = (spare_port()?, spare_port()?);
        let log = self.logs.join(format!("worker{}", self.workers.len()));
        let more = [&["--replicas", "3"], options].concat();
        let process = Process::worker(&url, port, http, &more, &log)?;
        serves(port, "").await.with_context(|| format!("see {}", log.display()))?;
        self.workers.push(Part { process, links, port, http });
        Ok(())
    }

    async fn open_gateway(&mut self, nodes: &[u16], options: &[&str]) -> anyhow::Result<()> {
        let (links, url) = links(nodes).await?;
        let log = self.logs.join(format!("gateway{}", self.gateways.len()));
        let (port, http) = (spare_port()?, spare_port()?);
        let monitors = self.monitors().await.into_iter().map(|port| format!("http://127.0.0.1:{port}"));
        let monitors = monitors.collect::<Vec<_>>().join(",");
        let more = [&["--replicas", "3", "--nats-monitor-url", &monitors], options].concat();
        let process = Process::gateway(&url, port, http, &more, &log)?;
        self.proxies.push(Proxy::to(port).await?);
        self.gateways.push(Part { process, links, port, http });
        Ok(())
    }

    /// Starts another gateway with these options, and does not wait for it.
    pub(crate) async fn join(&mut self, options: &[&str]) -> anyhow::Result<()> {
        let nodes: Vec<u16> = self.cluster.lock().await.nodes().iter().map(Server::port).collect();
        self.open_gateway(&nodes, options).await
    }

    /// Kills all gateways but the first ones.
    pub(crate) fn leave(&mut self, stay: usize) {
        self.gateways.truncate(stay);
        self.proxies.truncate(stay);
    }

    /// Restarts processes that exited by themselves, as a supervisor does. Not meant for those that were killed.
    pub(crate) fn revive(&mut self) -> anyhow::Result<()> {
        for part in self.gateways.iter_mut().chain(&mut self.workers) {
            if part.process.end()?.is_some() {
                part.process.restart()?;
            }
        }
        Ok(())
    }

    /// URLs of the gateways for clients.
    pub(crate) fn gateway_urls(&self) -> Vec<String> {
        self.proxies.iter().map(|proxy| format!("http://127.0.0.1:{}", proxy.port())).collect()
    }

    /// A connection to NATS without a proxy.
    pub(crate) fn link(&self) -> &Connection {
        &self.link
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        self.routes.len()
    }

    /// Memory, files and tasks of every gateway and worker.
    pub(crate) async fn weights(&self) -> anyhow::Result<Vec<Weight>> {
        let gateways =
            self.gateways.iter().enumerate().map(|(number, part)| (format!("gateway{number}"), part));
        let workers = self.workers.iter().enumerate().map(|(number, part)| (format!("worker{number}"), part));
        let mut weights = Vec::new();
        for (name, part) in gateways.chain(workers) {
            let resident = part.process.resident().with_context(|| name.clone())?;
            let tasks = figure(part.http, "runtime_tasks").await.with_context(|| name.clone())?;
            weights.push((name, resident, part.process.files()?, tasks as usize));
        }
        Ok(weights)
    }

    /// Every gateway and every worker.
    pub(crate) fn instances(&self) -> Vec<Instance> {
        let of = |kind: &str, target: fn(usize) -> Target, parts: &[Part]| -> Vec<Instance> {
            let one = |(number, part): (usize, &Part)| Instance {
                name: format!("{kind}{number}"),
                target: target(number),
                port: part.port,
                http: part.http,
            };
            parts.iter().enumerate().map(one).collect()
        };
        [of("gateway", Target::Gateway, &self.gateways), of("worker", Target::Worker, &self.workers)].concat()
    }

    /// The nodes' monitoring ports.
    pub(crate) async fn monitors(&self) -> Vec<u16> {
        self.cluster.lock().await.nodes().iter().map(Server::monitor_port).collect()
    }

    /// Injects a fault, waits, and heals it. An error is a finding: something did not stop or did not come back.
    pub(crate) async fn suffer(&mut self, fault: Fault) -> anyhow::Result<()> {
        let target = self.strike(fault.kind, fault.target).await?;
        sleep(fault.lasts).await;
        self.relieve(fault.kind, target).await
    }

    /// Injects a fault. Returns what it hit, as leaders are resolved to nodes.
    pub(crate) async fn strike(&mut self, kind: Kind, target: Target) -> anyhow::Result<Target> {
        let stream = match target {
            Target::OrdersLeader => order_streams::ORDERS,
            Target::StockLeader => order_streams::INVENTORY,
            Target::Node(node) => {
                self.strike_node(node, kind).await;
                return Ok(target);
            }
            Target::Gateway(number) => {
                return strike(&mut self.gateways[number], kind).await.map(|()| target);
            }
            Target::Worker(number) => return strike(&mut self.workers[number], kind).await.map(|()| target),
        };
        if kind == Kind::StepDown {
            leader::step_down(&self.link, stream, None).await?;
            return Ok(target);
        }
        let name = leader::of(&self.link, stream).await?;
        let node =
            self.cluster.lock().await.named(&name).ok_or_else(|| anyhow!("an unknown leader {name}"))?;
        self.strike_node(node, kind).await;
        Ok(Target::Node(node))
    }

    /// Ends a fault.
    pub(crate) async fn relieve(&mut self, kind: Kind, target: Target) -> anyhow::Result<()> {
        match target {
            Target::OrdersLeader | Target::StockLeader => Ok(()),
            Target::Node(node) => self.relieve_node(node, kind).await,
            Target::Gateway(number) => relieve(&mut self.gateways[number], kind),
            Target::Worker(number) => relieve(&mut self.workers[number], kind),
        }
    }

    async fn strike_node(&self, node: usize, kind: Kind) {
        match kind {
            Kind::Kill => self.server(node, Server::kill).await,
            Kind::Terminate => self.server(node, Server::stop).await,
            Kind::Freeze => self.server(node, |server| server.pause()).await,
            Kind::Cut => self.isolate(node, Mode::Cut),
            Kind::HalfOpen => self.isolate(node, Mode::Swallow),
            Kind::Delay => self.isolate(node, Mode::Delay(DELAY)),
            Kind::StepDown => {}
        }
    }

    async fn relieve_node(&self, node: usize, kind: Kind) -> anyhow::Result<()> {
        match kind {
            Kind::Kill | Kind::Terminate => {
                let cluster = self.cluster.clone();
                let again = move || cluster.blocking_lock().node_mut(node).restart();
                tokio::task::spawn_blocking(again).await??;
            }
            Kind::Freeze => self.server(node, |server| server.resume()).await,
            Kind::Cut | Kind::HalfOpen | Kind::Delay | Kind::StepDown => {
                // Connections that lost data are useless.
                self.isolate(node, Mode::Cut);
                self.isolate(node, Mode::Pass);
            }
        }
        Ok(())
    }

    async fn server(&self, node: usize, act: impl FnOnce(&mut Server) + Send + 'static) {
        let cluster = self.cluster.clone();
        // Fails only if the closure panicked, which ends the soak anyway.
        let _ = tokio::task::spawn_blocking(move || act(cluster.blocking_lock().node_mut(node))).await;
    }

    /// Sets the mode of the connections between a node and the others.
    fn isolate(&self, node: usize, mode: Mode) {
        for (from, row) in self.routes.iter().enumerate() {
            for (to, proxy) in row.iter().enumerate() {
                if let Some(proxy) = proxy.as_ref().filter(|_| from == node || to == node) {
                    proxy.set(mode);
                }
            }
        }
    }

    /// Waits until everything is up again.
    pub(crate) async fn heal(&mut self) -> anyhow::Result<()> {
        let limit = Instant::now() + HEALTHY;
        loop {
            let cluster = self.cluster.clone();
            if tokio::task::spawn_blocking(move || cluster.blocking_lock().is_healthy()).await? {
                break;
            }
            ensure!(Instant::now() < limit, "the cluster is not healthy {HEALTHY:?} after the last fault");
            sleep(LOOK).await;
        }
        for part in self.gateways.iter().chain(&self.workers) {
            serves(part.port, "").await?;
        }
        for gateway in &self.gateways {
            serves(gateway.port, "orders.v1.OrderService").await?;
        }
        Ok(())
    }

    /// Stops every gateway and worker gracefully. Each has to exit with success.
    pub(crate) async fn close(&mut self) -> anyhow::Result<()> {
        for part in self.gateways.iter_mut().chain(&mut self.workers) {
            terminate(part).await?;
        }
        Ok(())
    }
}

async fn links(nodes: &[u16]) -> anyhow::Result<(Vec<Proxy>, String)> {
    let mut links = Vec::new();
    for node in nodes {
        links.push(Proxy::to(*node).await?);
    }
    let urls: Vec<String> = links.iter().map(|link| format!("nats://127.0.0.1:{}", link.port())).collect();
    Ok((links, urls.join(",")))
}

async fn strike(part: &mut Part, kind: Kind) -> anyhow::Result<()> {
    let set = |mode| part.links.iter().for_each(|link| link.set(mode));
    match kind {
        Kind::Kill => {
            part.process.signal(Signal::KILL)?;
            part.process.ended(END).await?;
        }
        Kind::Terminate => terminate(part).await?,
        Kind::Freeze => part.process.signal(Signal::STOP)?,
        Kind::Cut => set(Mode::Cut),
        Kind::HalfOpen => set(Mode::Swallow),
        Kind::Delay => set(Mode::Delay(DELAY)),
        Kind::StepDown => {}
    }
    Ok(())
}

fn relieve(part: &mut Part, kind: Kind) -> anyhow::Result<()> {
    match kind {
        Kind::Kill | Kind::Terminate => part.process.restart()?,
        Kind::Freeze => part.process.signal(Signal::CONT)?,
        Kind::Cut | Kind::HalfOpen | Kind::Delay | Kind::StepDown => {
            let set = |mode| part.links.iter().for_each(|link| link.set(mode));
            // Connections that lost data are useless.
            set(Mode::Cut);
            set(Mode::Pass);
        }
    }
    Ok(())
}

async fn terminate(part: &mut Part) -> anyhow::Result<()> {
    part.process.signal(Signal::TERM)?;
    let status = part.process.ended(END).await.context("after SIGTERM")?;
    ensure!(status.success(), "after SIGTERM it exited with {status}");
    Ok(())
}
