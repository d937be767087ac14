//! Flags and environment variables of the gateway. Each is read here, once; nothing else reads the environment.

pub mod access;
pub mod command;
mod exposure;
mod memory;
mod secrets;
pub mod tls;

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::{Args, ValueEnum};
use cli::units::{self, seconds};

/// Where gRPC is served, if nobody says.
pub(crate) const GRPC_ADDR: &str = "127.0.0.1:50051";
/// Where HTTP is served, if nobody says.
pub(crate) const HTTP_ADDR: &str = "127.0.0.1:8080";
/// One node is enough to start with.
const REPLICAS: usize = 1;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_IN_FLIGHT: u32 = 1_024;
const MAX_STREAMS: u32 = 1_024;
/// Connections of clients, if nobody says and the process may have so many.
pub const MAX_CONNECTIONS: u32 = 10_000;
const MAX_WATCHES: u32 = 16_384;
const MAX_HANDSHAKES: u32 = 512;
/// A bearer token with many claims has a few thousand.
const MAX_HEADER_BYTES: u32 = 16 << 10;
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(3_600);
const MAX_CONNECTION_AGE_GRACE: Duration = Duration::from_secs(30);
const MAX_CONNECTION_IDLE: Duration = Duration::from_secs(900);
/// As much as NATS takes in a message unless it is told otherwise.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// A sixteenth of what containers are given: a request may hold twice its bytes and more while it is read.
const MAX_BUFFERED_BYTES: usize = 64 << 20;
/// As much as gRPC clients take unless they are told otherwise.
const MAX_REPLY_BYTES: usize = 4 << 20;

/// `gateway serve`.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Where gRPC is served
    #[arg(long, env = "GW_GRPC_ADDR", default_value = GRPC_ADDR, value_parser = address, value_name = "HOST:PORT")]
    pub grpc_addr: SocketAddr,
    /// Where /metrics, /healthz, /livez and the console are served, over HTTP
    #[arg(long, env = "GW_HTTP_ADDR", default_value = HTTP_ADDR, value_parser = address, value_name = "HOST:PORT")]
    pub http_addr: SocketAddr,
    /// Threads that serve gRPC, each with a connection to NATS; 0: one per core
    #[arg(long, env = "GW_THREADS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=256), value_name = "N")]
    pub threads: u16,
    /// Whether to make streams that are missing
    #[arg(long, env = "GW_PROVISION", value_enum, default_value_t = Provision::Auto, value_name = "WHEN")]
    pub provision: Provision,
    /// Replicas of streams that are made: 3 outlive the loss of a node, 1 does not
    #[arg(long, env = "GW_STREAM_REPLICAS", default_value_t = REPLICAS, value_parser = replicas, value_name = "N")]
    pub replicas: usize,
    /// How long calls in flight may take after SIGTERM
    #[arg(long, env = "GW_DRAIN_TIMEOUT", default_value = "20s", value_parser = seconds, value_name = "DURATION")]
    pub drain_timeout: Duration,
    /// Subjects whose services are NestJS, separated by commas: requests to them go in its envelope
    #[arg(long, env = "GW_NEST_SUBJECTS", value_delimiter = ',', value_name = "SUBJECT")]
    pub nest_subjects: Vec<String>,
    /// Keys of W3C baggage that travel on to the services behind, separated by commas
    #[arg(long, env = "GW_BAGGAGE_KEYS", value_delimiter = ',', value_name = "KEY")]
    pub baggage: Vec<String>,
    /// Whether a picture of what runs is served at / over HTTP; if nobody says, where only this machine can ask
    #[arg(long, env = "GW_CONSOLE", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub console: Option<bool>,
    /// Hosts that figures and console are served for, besides this machine's, separated by commas; `.NAME` stands for all
    /// names below it
    #[arg(long, env = "GW_HTTP_HOSTS", value_delimiter = ',', value_name = "HOST")]
    pub http_hosts: Vec<String>,
    /// Where traces go.
    #[command(flatten)]
    pub traces: telemetry::trace::Options,
    /// Where grpc.health.v1 is served besides, without TLS and for everybody
    #[arg(long, env = "GW_HEALTH_ADDR", value_parser = address, value_name = "HOST:PORT")]
    pub health_addr: Option<SocketAddr>,
    /// Bounds on memory.
    #[command(flatten)]
    pub limits: Limits,
    /// Encryption.
    #[command(flatten)]
    pub tls: tls::Tls,
    /// Who may call.
    #[command(flatten)]
    pub access: access::Access,
    /// Where NATS is.
    #[command(flatten)]
    pub nats: link::Options,
}

/// Limits: each is a bound on memory.
#[derive(Debug, Clone, Copy, Args)]
pub struct Limits {
    /// Calls in flight per rpc; one more is RESOURCE_EXHAUSTED. While calls end late, fewer are let in
    #[arg(long, env = "GW_MAX_IN_FLIGHT", value_parser = clap::value_parser!(u32).range(1..), default_value_t = MAX_IN_FLIGHT, value_name = "N")]
    pub max_in_flight: u32,
    /// Calls at a time on one connection; clients wait with more
    #[arg(long, env = "GW_MAX_STREAMS", value_parser = clap::value_parser!(u32).range(1..), default_value_t = MAX_STREAMS, value_name = "N")]
    pub max_streams: u32,
    /// Connections; with one more the one that has been idle longest, for 10 s at the least, ends, or the new one. If nobody says: 10,000, or as many as the limit of open files lets in
    #[arg(long, env = "GW_MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub max_connections: Option<u32>,
    /// Watches at a time; one more is RESOURCE_EXHAUSTED
    #[arg(long, env = "GW_MAX_WATCHES", value_parser = clap::value_parser!(u32).range(1..), default_value_t = MAX_WATCHES, value_name = "N")]
    pub max_watches: u32,
    /// TLS handshakes under way; one more ends the oldest
    #[arg(long, env = "GW_MAX_HANDSHAKES", value_parser = clap::value_parser!(u32).range(1..), default_value_t = MAX_HANDSHAKES, value_name = "N")]
    pub max_handshakes: u32,
    /// The headers of a call
    #[arg(long, env = "GW_MAX_HEADER_BYTES", default_value = "16KiB", value_parser = header_bytes, value_name = "SIZE")]
    pub max_header_bytes: u32,
    /// How long a connection lasts, a tenth more or less; calls on it are finished; 0: as long as it likes
    #[arg(long, env = "GW_MAX_CONNECTION_AGE", default_value = "1h", value_parser = seconds, value_name = "DURATION")]
    pub max_connection_age: Duration,
    /// How long watches and other streams may go on after that, before they end with UNAVAILABLE and their
    /// resume token; each ends at another moment of the second half
    #[arg(long, env = "GW_MAX_CONNECTION_AGE_GRACE", default_value = "30s", value_parser = seconds, value_name = "DURATION")]
    pub max_connection_age_grace: Duration,
    /// How long a connection may have no call in hand, before it ends with GOAWAY; 0: as long as it likes
    #[arg(long, env = "GW_MAX_CONNECTION_IDLE", default_value = "15m", value_parser = seconds, value_name = "DURATION")]
    pub max_connection_idle: Duration,
    /// The largest request
    #[arg(long, env = "GW_MAX_REQUEST_BYTES", default_value = "1MiB", value_parser = bytes, value_name = "SIZE")]
    pub max_request_bytes: usize,
    /// Bytes that all requests may hold while they are read and worked on, headers included; one more is
    /// RESOURCE_EXHAUSTED. A connection and a caller have a quarter each, those who are not known an eighth
    #[arg(long, env = "GW_MAX_BUFFERED_BYTES", default_value = "64MiB", value_parser = bytes, value_name = "SIZE")]
    pub max_buffered_bytes: usize,
    /// The largest reply
    #[arg(long, env = "GW_MAX_REPLY_BYTES", default_value = "4MiB", value_parser = bytes, value_name = "SIZE")]
    pub max_reply_bytes: usize,
}

/// When to make streams that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Provision {
    /// At start.
    Auto,
    /// Never: `gateway provision` does.
    Never,
}

/// `gateway provision`.
#[derive(Debug, Clone, Args)]
pub struct Streams {
    /// Replicas of streams that are made: 3 outlive the loss of a node, 1 does not
    #[arg(long, env = "GW_STREAM_REPLICAS", default_value_t = REPLICAS, value_parser = replicas, value_name = "N")]
    pub replicas: usize,
    /// Where NATS is.
    #[command(flatten)]
    pub nats: link::Options,
}

/// `gateway healthcheck`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// Where gRPC is served: `HOST:PORT`, or a URL with http:// or https://
    #[arg(long, env = "GW_GRPC_ADDR", default_value = GRPC_ADDR, value_name = "URL")]
    pub addr: String,
    /// Where health is served without TLS; goes before `--addr`
    #[arg(long, env = "GW_HEALTH_ADDR", value_parser = address, value_name = "HOST:PORT")]
    pub health_addr: Option<SocketAddr>,
    /// The service to check; empty: the whole gateway
    #[arg(long, default_value = "", value_name = "NAME")]
    pub service: String,
    /// What all of it may take, in seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub within: u64,
    /// TLS, and who we are.
    #[command(flatten)]
    pub access: crate::edge::client::ClientOptions,
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
    /// The defaults, for NATS at this URL, on free ports of this machine.
    pub fn at(nats_url: impl Into<String>) -> Serve {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Serve {
            grpc_addr: free,
            http_addr: free,
            threads: 0,
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
            nats: link::Options::at(nats_url),
        }
    }

    /// How many threads serve.
    pub(crate) fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads.into(),
        }
    }

    /// Whether there is a console.
    pub(crate) fn console(&self) -> bool {
        self.console.unwrap_or_else(|| self.http_addr.ip().to_canonical().is_loopback())
    }

    /// How long calls in flight may take at the end.
    pub(crate) fn drain_limit(&self) -> Duration {
        self.drain_timeout
    }
}

/// Where a server that listens on this address can be reached: one that listens everywhere is reached on this machine.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// A limit on messages that leaves room for any.
fn bytes(text: &str) -> Result<usize, String> {
    let bytes = units::bytes(text)?;
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes >= 1_024)
        .ok_or_else(|| "it has to be at least 1KiB".to_owned())
}

/// A limit on headers.
fn header_bytes(text: &str) -> Result<u32, String> {
    let bytes = units::bytes(text)?;
    let fits = u32::try_from(bytes).ok().filter(|bytes| (1_024..=1 << 20).contains(bytes));
    fits.ok_or_else(|| "it has to be between 1KiB and 1MiB".to_owned())
}

/// `host:port`, by name or number.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "the name has no address".to_owned())
}

/// JetStream takes no other numbers.
pub(crate) fn replicas(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(replicas @ (1 | 3 | 5)) => Ok(replicas),
        _ => Err("must be 1, 3 or 5".to_owned()),
    }
}
