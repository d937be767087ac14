//! The command line, and the environment variables that stand for its flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cli::units::{between, hours, millis, seconds};

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
    /// The file that has the rest
    #[command(flatten)]
    pub file: cli::document::Options,
}

/// What to do.
#[derive(Debug, Subcommand)]
// One is made, at the start.
#[allow(clippy::large_enum_variant)]
pub enum Command {
    /// Answer requests until told to stop
    Serve(Serve),
    /// Check the configuration
    Config {
        /// What to do
        #[command(subcommand)]
        action: Config,
    },
    /// Print what a shell needs to complete these commands
    Completions(cli::check::Completions),
    /// Print the manual page, or write those of all commands
    Man(cli::check::Man),
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

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check it as a start of `serve` would, without serving or connecting; list all problems
    Check {
        /// Print all values with where they are from, as a file that says the same; no secret is shown
        #[arg(long)]
        print: bool,
        /// The configuration
        #[command(flatten)]
        serve: Box<Serve>,
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

/// As long as callers repeat what they were not told of.
const HORIZON: Duration = Duration::from_secs(24 * 3_600);
/// Less is no memory at all.
const LEAST_HORIZON: Duration = Duration::from_secs(60);

/// With none, every repeat would be done again.
fn horizon(text: &str) -> Result<Duration, String> {
    between(hours(text)?, LEAST_HORIZON, Duration::MAX).map_err(|error| {
        format!("{error}: a request that is repeated after that is done again, so at least 24h in production")
    })
}

fn pause(text: &str) -> Result<Duration, String> {
    between(millis(text)?, Duration::from_millis(10), Duration::MAX)
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
    /// How long a reservation holds without an order; 0: until it is released
    #[arg(long, env = "GW_RESERVATION_TTL", default_value = "2m", value_parser = seconds, value_name = "DURATION")]
    pub reservation_ttl: Duration,
    /// Time between two looks for expired reservations
    #[arg(long, alias = "expiry-interval-ms", env = "GW_EXPIRY_INTERVAL", default_value = "1s", value_parser = pause, value_name = "DURATION")]
    pub expiry_interval: Duration,
    /// How long the ids of finished orders and of adjustments are remembered; at least 24h in production
    #[arg(long, env = "GW_ID_HORIZON", default_value = "24h", value_parser = horizon, value_name = "DURATION")]
    pub id_horizon: Duration,
    /// Deliveries of an order event before it becomes a dead letter
    #[arg(long, env = "GW_MAX_DELIVER", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..))]
    pub max_deliver: i64,
    /// Commands that the ledger decides together at most
    #[arg(long, env = "GW_BATCH", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// How long the work in hand may take when told to stop
    #[arg(long, env = "GW_DRAIN_TIMEOUT", default_value = "20s", value_parser = seconds, value_name = "DURATION")]
    pub drain_timeout: Duration,
}

impl Serve {
    /// All that a start would refuse, found without binding or connecting.
    pub fn faults(&self) -> Vec<String> {
        let mut found: Vec<String> = self.nats.link.faults().iter().map(ToString::to_string).collect();
        found.extend(self.traces.check().err().map(|error| telemetry::log::chain(&error)));
        if self.health_addr == self.http_addr && self.http_addr.port() != 0 {
            let address = self.http_addr;
            found.push(format!(
                "GW_HEALTH_ADDR and GW_HTTP_ADDR are both {address}: give each a port of its own"
            ));
        }
        found
    }

    /// What is allowed, and should be known.
    pub fn warnings(&self) -> Option<String> {
        (self.id_horizon < HORIZON).then(|| {
            let known = cli::units::shown(self.id_horizon);
            format!(
                "GW_ID_HORIZON is {known}: a change of stock or an order that is repeated later than that is done again; \
                 callers may repeat for a day"
            )
        })
    }

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
            reservation_ttl: Duration::from_secs(120),
            expiry_interval: Duration::from_secs(1),
            id_horizon: HORIZON,
            max_deliver: 20,
            batch: 512,
            drain_timeout: Duration::from_secs(20),
        }
    }

    /// How long a reservation holds without an order.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        (!self.reservation_ttl.is_zero()).then_some(self.reservation_ttl)
    }

    /// How long finished ids are known.
    pub(crate) fn horizon(&self) -> Duration {
        self.id_horizon
    }
}
