//! A gateway in front of another organisation's services, put together of the generic crates alone: it shows that these
//! need no line of the order system, and how a program uses them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use admission::MemoryBudget;
use admission::budget::Size;
use anyhow::Context as _;
use bridge::{Bridge, RouteStates};
use catalog::Catalog;
use listener::{ConnectionLimit, WhenFull};
use nats::Connection;
use server::config::{access::Access, tls::Tls};
use server::grpc::{self, Api, Limits, Sizes};
use server::supervisor::Supervisor;
use server::{Baggage, CallMetrics, Current, HealthRegistry, Served, security};
use telemetry::Tracer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Where the protos are: those of this contract, and the gateway's options.
const FOLDERS: [&str; 2] =
    [concat!(env!("CARGO_MANIFEST_DIR"), "/proto"), concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto")];
const FILES: [&str; 2] = ["example/library/shelves.proto", "example/library/desk.proto"];
/// Maximum size of a message, in bytes.
const MESSAGE: usize = 1 << 20;

/// A gateway that serves the contract.
pub struct Gateway {
    /// The address of its gRPC port.
    pub address: SocketAddr,
    /// What probes are told.
    pub health: HealthRegistry,
    drain: CancellationToken,
    served: JoinHandle<()>,
}

/// The catalog of the contract.
///
/// # Errors
/// If the protos cannot be compiled, or the catalog refuses them.
pub fn catalog() -> anyhow::Result<Arc<Catalog>> {
    let mut compiler = protox::Compiler::new(FOLDERS)?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    Ok(Catalog::new(&compiler.encode_file_descriptor_set())?)
}

impl Gateway {
    /// Serves the contract on a free port of this machine, over the NATS at this URL.
    ///
    /// # Errors
    /// If NATS cannot be reached, or a file of `access` cannot be used.
    pub async fn start(nats: &str, access: &Access) -> anyhow::Result<Gateway> {
        let catalog = catalog()?;
        let drain = CancellationToken::new();
        let connection = Connection::connect(&nats::Options::at(nats), "library").await?;
        let states = RouteStates::new(catalog.clone(), catalog.serving_routes(), &bridge::Limits::default());
        let states = Arc::new(states);
        let served = Served::new(states.clone(), &[], access.reflection)?;
        let health = HealthRegistry::new(served.names());
        let current = Current::new(served);
        let (secure, upkeep) = security::open(access, &Tls::default(), 16, &current).await?;
        upkeep.spawn(&Supervisor::new(drain.clone()));
        let api = Api {
            bridge: Bridge::new(connection, states),
            services: Vec::new(),
            health: health.clone(),
            metrics: CallMetrics::new(Tracer::default(), &[]),
            baggage: Baggage::new(&[]),
            guard: secure.guard,
            current,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let served = tokio::spawn(grpc::open(listener, api, limits(), drain.clone())?);
        Ok(Gateway { address, health, drain, served })
    }

    /// Answers the calls in flight, and ends.
    ///
    /// # Errors
    /// If serving has panicked.
    pub async fn drain(self) -> anyhow::Result<()> {
        self.health.end();
        self.drain.cancel();
        Ok(self.served.await?)
    }
}

fn limits() -> Limits {
    Limits {
        streams: 100,
        headers: 16 << 10,
        age: None,
        grace: Duration::from_secs(30),
        idle: None,
        connections: ConnectionLimit::new("grpc", 100, "this limit is fixed", WhenFull::Yield),
        tls: None,
        sizes: Sizes { request: MESSAGE, reply: MESSAGE },
        budget: MemoryBudget::new(Size {
            all: 64 * MESSAGE,
            request: MESSAGE,
            answers: 64 * MESSAGE,
            answer: MESSAGE,
            streams: [100, 100],
            connection_streams: [10, 10],
        }),
    }
}
