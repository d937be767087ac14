//! Flags and environment variables of the gateway. Each is read once, here; nothing else reads the environment.

pub mod bucket;
pub mod command;
mod exposure;
pub mod keys;
mod memory;
mod published;
mod secrets;

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use catalog::Catalog;
use clap::{Args, ValueEnum};
use cli::units::{self, seconds};
use order_streams::replicas;
use server::config::{access, client, tls};

use crate::contracts;

/// Default listen address for gRPC.
pub(crate) const GRPC_ADDR: &str = "127.0.0.1:50051";
/// Default listen address for HTTP.
pub(crate) const HTTP_ADDR: &str = "127.0.0.1:8080";
/// A single node is enough to start with.
pub(crate) const REPLICAS: usize = 1;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_IN_FLIGHT: u32 = 1_024;
const MAX_STREAMS: u32 = 1_024;
/// Default for the number of client connections, if the limit of open files allows it.
pub const MAX_CONNECTIONS: u32 = 10_000;
const MAX_WATCHES: u32 = 16_384;
const MAX_HANDSHAKES: u32 = 512;
/// A bearer token with many claims has a few thousand bytes.
const MAX_HEADER_BYTES: u32 = 16 << 10;
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(3_600);
const MAX_CONNECTION_AGE_GRACE: Duration = Duration::from_secs(30);
const MAX_CONNECTION_IDLE: Duration = Duration::from_secs(900);
/// The default maximum payload of NATS.
pub(crate) const MAX_REQUEST_BYTES: usize = 1 << 20;
/// A sixteenth of the memory limit of our containers: a request may hold more than twice its size while it is read.
const MAX_BUFFERED_BYTES: usize = 64 << 20;
/// The default maximum message size of gRPC clients.
const MAX_REPLY_BYTES: usize = 4 << 20;

/// `gateway serve`.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Listen address for gRPC
    #[arg(long, env = "GW_GRPC_ADDR", default_value = GRPC_ADDR, value_parser = address, value_name = "HOST:PORT")]
    pub grpc_addr: SocketAddr,
    /// Listen address for HTTP: /metrics, /healthz, /livez and the console
    #[arg(long, env = "GW_HTTP_ADDR", default_value = HTTP_ADDR, value_parser = address, value_name = "HOST:PORT")]
    pub http_addr: SocketAddr,
    /// Threads that serve gRPC, each with a connection to NATS; 0: one per core
    #[arg(long, env = "GW_THREADS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=256), value_name = "N")]
    pub threads: u16,
    /// Contracts to serve.
    #[command(flatten)]
    pub sources: catalog_sources::Options,
    /// Contracts of a bucket to serve.
    #[command(flatten)]
    pub bucket: bucket::Source,
    /// Take contracts that break clients of those that are served when they are read again
    #[arg(long, env = "GW_ALLOW_BREAKING")]
    pub allow_breaking: bool,
    /// Whether the order system is served; default: if none of --proto, --descriptor-set and
    /// --catalog-bucket is given. `false`: no stream
    /// and no JetStream is needed
    #[arg(long, env = "GW_ORDERS", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub orders: Option<bool>,
    /// Services without which the gateway itself is not ready, separated by commas, beside the order system: its health,
    /// /healthz and `gateway healthcheck` follow them
    #[arg(long, env = "GW_READY_ON", value_delimiter = ',', value_name = "SERVICE")]
    pub ready_on: Vec<String>,
    /// Whether to create missing streams
    #[arg(long, env = "GW_PROVISION", value_enum, default_value_t = Provision::Auto, value_name = "WHEN")]
    pub provision: Provision,
    /// Replicas of the streams that are created: 3 survive the loss of a node, 1 does not
    #[arg(long, env = "GW_STREAM_REPLICAS", default_value_t = REPLICAS, value_parser = replicas, value_name = "N")]
    pub replicas: usize,
    /// How long to wait for calls in flight after SIGTERM
    #[arg(long, env = "GW_DRAIN_TIMEOUT", default_value = "20s", value_parser = seconds, value_name = "DURATION")]
    pub drain_timeout: Duration,
    /// Subjects that NestJS services answer, separated by commas: requests to them use the NestJS envelope
    #[arg(long, env = "GW_NEST_SUBJECTS", value_delimiter = ',', value_name = "SUBJECT")]
    pub nest_subjects: Vec<String>,
    /// Keys of W3C baggage that are forwarded to the services, separated by commas
    #[arg(long, env = "GW_BAGGAGE_KEYS", value_delimiter = ',', value_name = "KEY")]
    pub baggage: Vec<String>,
    /// Whether the console is served at / over HTTP; default: only if the HTTP listener is on a loopback address
    #[arg(long, env = "GW_CONSOLE", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub console: Option<bool>,
    /// Host names that metrics and the console are served for, in addition to this machine's, separated by commas;
    /// `.NAME` matches all of its subdomains
    #[arg(long, env = "GW_HTTP_HOSTS", value_delimiter = ',', value_name = "HOST")]
    pub http_hosts: Vec<String>,
    /// Export of traces.
    #[command(flatten)]
    pub traces: telemetry::trace::Options,
    /// Additional listen address for grpc.health.v1, without TLS, authentication and reflection
    #[arg(long, env = "GW_HEALTH_ADDR", value_parser = address, value_name = "HOST:PORT")]
    pub health_addr: Option<SocketAddr>,
    /// Limits, which bound memory.
    #[command(flatten)]
    pub limits: Limits,
    /// TLS.
    #[command(flatten)]
    pub tls: tls::Tls,
    /// Authentication and authorization.
    #[command(flatten)]
    pub access: access::Access,
    /// Connection to NATS.
    #[command(flatten)]
    pub nats: nats::Options,
}

/// Limits: each bounds memory.
#[derive(Debug, Clone, Copy, Args)]
pub struct Limits {
    /// Concurrency limit: calls in flight per rpc; one more fails with RESOURCE_EXHAUSTED. The limit is lowered while
    /// calls are late
    #[arg(long, env = "GW_MAX_IN_FLIGHT", value_parser = clap::value_parser!(u32).range(1..), default_value_t = MAX_IN_FLIGHT, value_name = "N")]
    pub max_in_flight: u32,
    /// Concurrent calls on one connection; clients queue further ones
    #[arg(long, env = "GW_MAX_STREAMS", value_parser = clap::value_parser!(u32).range(1..), default_value_t = MAX_STREAMS, value_name = "N")]
    pub max_streams: u32,
    /// Client connections; one more closes the one that has been idle longest, for at least 10 s, or is closed itself.
    /// Default: 10,000, or as many as the limit of open files allows
    #[arg(long, env = "GW_MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub max_connections: Option<u32>,
    /// Concurrent watches; one more fails with RESOURCE_EXHAUSTED
    #[arg(long, env = "GW_MAX_WATCHES", value_parser = clap::value_parser!(u32).range(1..), default_value_t = MAX_WATCHES, value_name = "N")]
    pub max_watches: u32,
    /// Concurrent TLS handshakes; one more aborts the oldest
    #[arg(long, env = "GW_MAX_HANDSHAKES", value_parser = clap::value_parser!(u32).range(1..), default_value_t = MAX_HANDSHAKES, value_name = "N")]
    pub max_handshakes: u32,
    /// Maximum size of a call's headers
    #[arg(long, env = "GW_MAX_HEADER_BYTES", default_value = "16KiB", value_parser = header_bytes, value_name = "SIZE")]
    pub max_header_bytes: u32,
    /// Maximum age of a connection, ±10 %; calls on it are finished; 0: no limit
    #[arg(long, env = "GW_MAX_CONNECTION_AGE", default_value = "1h", value_parser = seconds, value_name = "DURATION")]
    pub max_connection_age: Duration,
    /// How long watches and other streams may continue after that, before they end with UNAVAILABLE and their resume
    /// token; their ends are spread over the second half of this time
    #[arg(long, env = "GW_MAX_CONNECTION_AGE_GRACE", default_value = "30s", value_parser = seconds, value_name = "DURATION")]
    pub max_connection_age_grace: Duration,
    /// How long a connection may be idle (without a call in flight) before it is closed with GOAWAY; 0: no limit
    #[arg(long, env = "GW_MAX_CONNECTION_IDLE", default_value = "15m", value_parser = seconds, value_name = "DURATION")]
    pub max_connection_idle: Duration,
    /// Maximum size of a request message
    #[arg(long, env = "GW_MAX_REQUEST_BYTES", default_value = "1MiB", value_parser = bytes, value_name = "SIZE")]
    pub max_request_bytes: usize,
    /// Memory that all requests together may hold while they are read and processed, including headers; beyond it they
    /// fail with RESOURCE_EXHAUSTED. One connection and one caller may hold a quarter of it each, unauthenticated
    /// callers an eighth
    #[arg(long, env = "GW_MAX_BUFFERED_BYTES", default_value = "64MiB", value_parser = bytes, value_name = "SIZE")]
    pub max_buffered_bytes: usize,
    /// Maximum size of a reply message
    #[arg(long, env = "GW_MAX_REPLY_BYTES", default_value = "4MiB", value_parser = bytes, value_name = "SIZE")]
    pub max_reply_bytes: usize,
}

/// When missing streams are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Provision {
    /// At start, if they are missing.
    Auto,
    /// Never; `gateway provision` does it.
    Never,
}

/// `gateway provision`.
#[derive(Debug, Clone, Args)]
pub struct Streams {
    /// Replicas of the streams that are created: 3 survive the loss of a node, 1 does not
    #[arg(long, env = "GW_STREAM_REPLICAS", default_value_t = REPLICAS, value_parser = replicas, value_name = "N")]
    pub replicas: usize,
    /// Connection to NATS.
    #[command(flatten)]
    pub nats: nats::Options,
}

/// `gateway healthcheck`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// Address of the gRPC listener: `HOST:PORT`, or a URL with http:// or https://
    #[arg(long, env = "GW_GRPC_ADDR", default_value = GRPC_ADDR, value_name = "URL")]
    pub addr: String,
    /// Address of the health listener without TLS; takes precedence over `--addr`
    #[arg(long, env = "GW_HEALTH_ADDR", value_parser = address, value_name = "HOST:PORT")]
    pub health_addr: Option<SocketAddr>,
    /// The service to check; empty: the whole gateway
    #[arg(long, default_value = "", value_name = "NAME")]
    pub service: String,
    /// Timeout of the whole check, in seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub within: u64,
    /// TLS and credentials.
    #[command(flatten)]
    pub access: client::ClientOptions,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_in_flight: MAX_IN_FLIGHT,
            max_streams: MAX_STREAMS,
            max_connections: None,
            max_watches: MAX_WATCHES,
            max_handshakes: MAX_HANDSHAKES,
            max_header_bytes: MAX_HEADER_BYTES,
            max_connection_age: MAX_CONNECTION_AGE,
            max_connection_age_grace: MAX_CONNECTION_AGE_GRACE,
            max_connection_idle: MAX_CONNECTION_IDLE,
            max_request_bytes: MAX_REQUEST_BYTES,
            max_buffered_bytes: MAX_BUFFERED_BYTES,
            max_reply_bytes: MAX_REPLY_BYTES,
        }
    }
}

impl Serve {
    /// The defaults, for NATS at this URL, listening on free ports of the loopback address.
    pub fn at(nats_url: impl Into<String>) -> Serve {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Serve {
            grpc_addr: free,
            http_addr: free,
            threads: 0,
            sources: catalog_sources::Options::default(),
            bucket: bucket::Source::default(),
            allow_breaking: false,
            orders: None,
            ready_on: Vec::new(),
            provision: Provision::Auto,
            replicas: REPLICAS,
            drain_timeout: DRAIN_TIMEOUT,
            nest_subjects: Vec::new(),
            baggage: Vec::new(),
            console: None,
            http_hosts: Vec::new(),
            traces: telemetry::trace::Options::default(),
            health_addr: None,
            limits: Limits::default(),
            tls: tls::Tls::default(),
            access: access::Access::default(),
            nats: nats::Options::at(nats_url),
        }
    }

    /// The number of serving threads.
    pub(crate) fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads.into(),
        }
    }

    /// Whether the order system is served.
    pub(crate) fn orders(&self) -> bool {
        self.orders.unwrap_or_else(|| !self.changes())
    }

    /// Whether what is served may change: it is not compiled in alone.
    pub(crate) fn changes(&self) -> bool {
        !self.sources.is_empty() || self.bucket.catalog_bucket.is_some()
    }

    /// What is served, but for what a bucket has.
    pub(crate) fn catalog(&self) -> anyhow::Result<Arc<Catalog>> {
        let catalog = match self.bucket.catalog_bucket {
            Some(_) => contracts::with(&self.sources, &self.bucket.outside(Vec::new()), self.orders())?,
            None => contracts::catalog(&self.sources, self.orders())?,
        };
        self.check_rules(&catalog)?;
        Ok(catalog)
    }

    /// Checks that somebody may call each rpc, where callers are authenticated.
    pub(crate) fn check_rules(&self, catalog: &Catalog) -> anyhow::Result<()> {
        if self.access.required() {
            catalog.requires_rules()?;
        }
        Ok(())
    }

    /// Whether the console is served.
    pub(crate) fn console(&self) -> bool {
        self.console.unwrap_or_else(|| self.http_addr.ip().to_canonical().is_loopback())
    }

    /// How long a drain waits for calls in flight.
    pub(crate) fn drain_limit(&self) -> Duration {
        self.drain_timeout
    }
}

/// The address at which a server that listens on this address is reached: loopback, if it listens on all interfaces.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// A message size limit of at least 1 KiB.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let bytes = units::bytes(text)?;
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes >= 1_024)
        .ok_or_else(|| "must be at least 1KiB".to_owned())
}

/// A header size limit.
fn header_bytes(text: &str) -> Result<u32, String> {
    let bytes = units::bytes(text)?;
    let fits = u32::try_from(bytes).ok().filter(|bytes| (1_024..=1 << 20).contains(bytes));
    fits.ok_or_else(|| "must be between 1KiB and 1MiB".to_owned())
}

/// `host:port`, with a host name or an IP address.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "the host name has no address".to_owned())
}
