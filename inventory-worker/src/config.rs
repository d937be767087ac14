//! The command line, and the environment variables that stand for its flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::stock::Amounts;

/// The inventory service of the order gateway: stock over NATS, kept in a ledger on JetStream
#[derive(Debug, Parser)]
#[command(name = "inventory-worker", version = version::FULL, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `serve` if nothing is said
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `serve`
    #[command(flatten)]
    pub serve: Serve,
    /// What is logged
    #[command(flatten)]
    pub log: telemetry::log::Options,
}

/// What to do.
#[derive(Debug, Subcommand)]
// One is made, at the start.
#[allow(clippy::large_enum_variant)]
pub enum Command {
    /// Answer requests until told to stop
    Serve(Serve),
    /// Import or export the stock on hand; remove products
    Stock {
        /// What to do
        #[command(subcommand)]
        action: Stock,
    },
    /// Ask a running worker for its health; exit code 0 if it serves
    Healthcheck {
        /// The worker's GW_HEALTH_ADDR
        #[arg(long, env = "GW_HEALTH_ADDR", default_value = "127.0.0.1:50052")]
        addr: SocketAddr,
    },
}

/// Stock on hand as a file: `product,on_hand`, with that line as the first.
#[derive(Debug, Subcommand)]
pub enum Stock {
    /// Set the stock on hand of every product in the file, as counted
    Import {
        /// The file; `-` is standard input
        file: PathBuf,
        /// Import the good lines although there are bad ones
        #[arg(long)]
        skip_bad: bool,
        /// Import only into a stock without any product; else change nothing, and exit with 0
        #[arg(long)]
        if_empty: bool,
        /// Where the ledger is
        #[command(flatten)]
        nats: Nats,
    },
    /// Keep products no longer of which nothing is on hand and nothing reserved
    Remove {
        /// Their names
        #[arg(required_unless_present = "zero", conflicts_with = "zero")]
        products: Vec<String>,
        /// All of them
        #[arg(long)]
        zero: bool,
        /// Say which, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Where the ledger is
        #[command(flatten)]
        nats: Nats,
    },
    /// Write the stock on hand of every product
    Export {
        /// The file, for nobody else to read; it is replaced. `-` is standard output
        file: PathBuf,
        /// Where the ledger is
        #[command(flatten)]
        nats: Nats,
    },
}

/// Where the ledger is.
#[derive(Debug, Clone, Args)]
pub struct Nats {
    /// The connection
    #[command(flatten)]
    pub link: link::Options,
    /// Whether missing streams are made at start
    #[arg(long, env = "GW_PROVISION", value_enum, default_value_t = Provision::Auto)]
    pub provision: Provision,
    /// Replicas of streams that are made: 1, 3 or 5
    #[arg(long, env = "GW_STREAM_REPLICAS", default_value_t = 1, value_parser = replicas)]
    pub replicas: u8,
    /// Ledger entries after which a snapshot is made
    #[arg(long, env = "GW_SNAPSHOT_EVERY", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub snapshot_every: u64,
    /// Products that there may be: no change of stock makes more. `stock remove` makes room
    #[arg(long, env = "GW_MAX_PRODUCTS", default_value_t = PRODUCTS, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_products: u32,
    /// Ids of adjustments that are remembered at most, for GW_ID_HORIZON
    #[arg(long, env = "GW_MAX_ADJUSTMENTS", default_value_t = ADJUSTMENTS, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_adjustments: u32,
    /// Reservations that are known at most; finished ones are, for GW_ID_HORIZON
    #[arg(long, env = "GW_MAX_RESERVATIONS", default_value_t = RESERVATIONS, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_reservations: u32,
}

/// Together they fit into 768 MiB, with a copy of them while a snapshot is made.
const PRODUCTS: u32 = 400_000;
const ADJUSTMENTS: u32 = 400_000;
const RESERVATIONS: u32 = 1_800_000;

impl Nats {
    /// How much the stock may come to hold.
    pub fn bounds(&self) -> Amounts {
        let number = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        Amounts {
            products: number(self.max_products),
            adjustments: number(self.max_adjustments),
            reservations: number(self.max_reservations),
        }
    }
}

/// An odd number, so that there is a majority.
fn replicas(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        _ => Err("must be 1, 3 or 5".to_owned()),
    }
}

/// Whether missing streams are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Provision {
    /// Make what is missing
    Auto,
    /// Refuse to start without them
    Never,
}

/// How to serve.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Where the ledger is
    #[command(flatten)]
    pub nats: Nats,
    /// Where grpc.health.v1 is served; port 0 takes a free one
    #[arg(long, env = "GW_HEALTH_ADDR", default_value = "127.0.0.1:50052")]
    pub health_addr: SocketAddr,
    /// Where /metrics, /healthz and /livez are served, over HTTP; port 0 takes a free one
    #[arg(long, env = "GW_HTTP_ADDR", default_value = "127.0.0.1:8081", value_name = "HOST:PORT")]
    pub http_addr: SocketAddr,
    /// Hosts that figures are served for, besides this machine's, separated by commas; `.NAME` stands for all names below
    /// it
    #[arg(long, env = "GW_HTTP_HOSTS", value_delimiter = ',', value_name = "HOST")]
    pub http_hosts: Vec<String>,
    /// Where traces go
    #[command(flatten)]
    pub traces: telemetry::trace::Options,
    /// Seconds that a reservation holds without an order; 0: until it is released
    #[arg(long, env = "GW_RESERVATION_TTL", default_value_t = 120, value_name = "SECONDS")]
    pub reservation_ttl: u64,
    /// Milliseconds between two looks for expired reservations
    #[arg(long, env = "GW_EXPIRY_INTERVAL", default_value_t = 1_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..))]
    pub expiry_interval_ms: u64,
    /// Hours that the ids of finished orders and of adjustments are remembered; at least 24 in production
    #[arg(long, env = "GW_ID_HORIZON", default_value_t = 24, value_name = "HOURS")]
    pub id_horizon: u64,
    /// Deliveries of an order event before it becomes a dead letter
    #[arg(long, env = "GW_MAX_DELIVER", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..))]
    pub max_deliver: i64,
    /// Commands that the ledger decides together at most
    #[arg(long, env = "GW_BATCH", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// Seconds that the work in hand may take when told to stop
    #[arg(long, env = "GW_DRAIN_TIMEOUT", default_value_t = 20, value_name = "SECONDS")]
    pub drain_timeout: u64,
}

impl Serve {
    /// The defaults, for a server at this URL, with a health port of its own.
    pub fn at(nats_url: &str) -> Serve {
        Serve {
            nats: Nats {
                link: link::Options::at(nats_url),
                provision: Provision::Auto,
                replicas: 1,
                snapshot_every: 20_000,
                max_products: PRODUCTS,
                max_adjustments: ADJUSTMENTS,
                max_reservations: RESERVATIONS,
            },
            health_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            http_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            http_hosts: Vec::new(),
            traces: telemetry::trace::Options::default(),
            reservation_ttl: 120,
            expiry_interval_ms: 1_000,
            id_horizon: 24,
            max_deliver: 20,
            batch: 512,
            drain_timeout: 20,
        }
    }

    /// How long a reservation holds without an order.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        (self.reservation_ttl > 0).then(|| Duration::from_secs(self.reservation_ttl))
    }

    /// How long finished ids are known.
    pub(crate) fn horizon(&self) -> Duration {
        Duration::from_secs(self.id_horizon.saturating_mul(3_600))
    }
}
