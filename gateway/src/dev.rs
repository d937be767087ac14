//! `gateway dev`: the whole system on one machine in one process tree, for evaluation and development. `gateway serve`
//! must not depend on it.

mod catalogue;
mod nats;
mod words;
mod workers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use telemetry::log;
use tokio::time::Instant;

use self::nats::Nats;
use self::words::say;
use self::workers::Workers;
use crate::config::{self, GRPC_ADDR, HTTP_ADDR, address, reachable};
use crate::serve::{Gateway, check_free};
use crate::signal::{Hangup, Stop};
use orders::service::api::SERVICE;
use server::grpc;

/// The default log filter, without the warnings about a single replica.
pub const LOG: &str = "warn,gateway::serve=error,durability=error";

/// Timeout until all services are healthy: a worker takes seconds to load a large ledger.
const HEALTHY: Duration = Duration::from_secs(120);

/// `gateway dev`.
#[derive(Debug, Clone, Args)]
pub struct Dev {
    /// Data folder for orders and stock; default: order-gateway/dev in the user's data folder
    #[arg(long, env = "GW_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Listen address for gRPC
    #[arg(long, env = "GW_GRPC_ADDR", default_value = GRPC_ADDR, value_parser = address, value_name = "HOST:PORT")]
    pub grpc_addr: SocketAddr,
    /// Listen address for HTTP: /metrics, /healthz, /livez and the console
    #[arg(long, env = "GW_HTTP_ADDR", default_value = HTTP_ADDR, value_parser = address, value_name = "HOST:PORT")]
    pub http_addr: SocketAddr,
    /// Listen on non-loopback addresses, although callers are not authenticated
    #[arg(long, env = "GW_INSECURE")]
    pub insecure: bool,
    /// Number of inventory workers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub workers: u16,
    /// Contracts to serve, beside the order system.
    #[command(flatten)]
    pub sources: catalog_sources::Options,
    /// Port of NATS; default: 4222 if it is free, otherwise any free port
    #[arg(long, value_name = "PORT")]
    pub nats_port: Option<u16>,
}

/// `gateway worker`: a worker that ends with the process that started it.
#[derive(Debug, Clone, Args)]
pub struct Worker {
    /// The URL of NATS
    #[arg(long, value_name = "URL")]
    nats_url: String,
}

/// All running parts.
struct System {
    gateway: Gateway,
    workers: Workers,
    nats: Nats,
}

/// Starts the system, and runs it until Ctrl-C or SIGTERM. A second signal stops it immediately.
pub async fn run(config: Dev, log: &log::Options) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let mut system = tokio::select! {
        system = start(&config, log) => system?,
        () = stop.asked() => return Ok(()),
    };
    let reloads = system.gateway.reloads();
    let _hangup = Hangup::listen(move || reloads.ask())?;
    tokio::select! {
        () = stop.asked() => {}
        error = system.nats.keep() => return Err(error),
        () = system.gateway.lost() => bail!("ORDERS was recreated or truncated: start again"),
        failure = system.gateway.failed() => return Err(failure.into()),
        error = system.workers.failed() => return Err(error),
    }
    say("stopping (Ctrl-C again: immediately)");
    let supervisor = system.gateway.supervisor();
    tokio::select! {
        () = system.stop() => match supervisor.failure() {
            None => say("stopped"),
            Some(failure) => return Err(failure.into()),
        },
        () = stop.asked() => say("stopped immediately"),
    }
    Ok(())
}

/// A worker of `dev`: runs until SIGTERM, or until its parent process is gone.
pub async fn worker(config: Worker) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let parent = workers::parent_gone();
    let shutdown = async {
        tokio::select! {
            () = stop.asked() => {}
            () = parent => {}
        }
    };
    inventory_worker::run(inventory_worker::config::Serve::at(&config.nats_url), shutdown).await
}

async fn start(config: &Dev, log: &log::Options) -> anyhow::Result<System> {
    check_free(config.grpc_addr, "--grpc-addr")?;
    check_free(config.http_addr, "--http-addr")?;
    let folder = folder(config)?;
    let nats = Nats::start(&folder, config.nats_port).await?;
    let mut serve = config::Serve::at(nats.url());
    serve.grpc_addr = config.grpc_addr;
    serve.http_addr = config.http_addr;
    serve.access.insecure = config.insecure;
    (serve.sources, serve.orders, serve.allow_breaking) = (config.sources.clone(), Some(true), true);
    let gateway = Gateway::start(serve).await?;
    say(&format!("gateway       gRPC on {}, HTTP on {}", gateway.grpc_addr(), gateway.http_addr()));
    let workers = Workers::start(config.workers, nats.url(), log)?;
    say(&format!("workers       {}", config.workers));
    healthy(&gateway).await?;
    let loaded = catalogue::load(&folder, reachable(gateway.grpc_addr())).await?;
    say(&format!("catalogue     {loaded}"));
    words::ready(reachable(gateway.grpc_addr()), reachable(gateway.http_addr()), nats.url(), &folder);
    Ok(System { gateway, workers, nats })
}

impl System {
    /// Stops the parts in order: the gateway first, the nats-server last.
    async fn stop(self) {
        self.gateway.drain().await;
        self.workers.stop().await;
        self.nats.stop().await;
    }
}

/// Waits until every service of the order system is up.
async fn healthy(gateway: &Gateway) -> anyhow::Result<()> {
    let limit = Instant::now() + HEALTHY;
    let mut services = grpc::services(&orders::served::contract(), &[SERVICE]);
    services.push("".into());
    loop {
        match services.iter().find(|service| gateway.up(service) != Some(true)) {
            None => return Ok(()),
            Some(service) if Instant::now() > limit => {
                bail!("{service} is not SERVING after {HEALTHY:?}; see the log of the workers")
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The data folder, which is the same for each start.
fn folder(config: &Dev) -> anyhow::Result<PathBuf> {
    let folder = config
        .data_dir
        .clone()
        .or_else(user_folder)
        .context("no data folder: neither XDG_DATA_HOME nor HOME is an absolute path; give --data-dir")?;
    cli::file::folder(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(std::path::absolute(folder)?)
}

fn user_folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(data.join("order-gateway/dev"))
}
