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
    /// What to do; default: `serve`
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `serve`
    #[command(flatten)]
    pub serve: Serve,
    /// What is logged
    #[command(flatten)]
    pub log: telemetry::log::Options,
    /// The configuration file
    #[command(flatten)]
    pub file: cli::document::Options,
}

/// What to do.
#[derive(Debug, Subcommand)]
// Only one is created, at the start.
#[allow(clippy::large_enum_variant)]
pub enum Command {
    /// Answer requests until SIGTERM or SIGINT
    Serve(Serve),
    /// Check the configuration
    Config {
        /// What to do
        #[command(subcommand)]
        action: Config,
    },
    /// Print the completion script of a shell
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
    /// Check it as `serve` would at start, without serving or connecting; list all problems
    Check {
        /// Print all values with their sources, as an equivalent configuration file; secrets are not shown
        #[arg(long)]
        print: bool,
        /// The configuration
        #[command(flatten)]
        serve: Box<Serve>,
    },
}

/// Stock on hand as a CSV file whose first line is `product,on_hand`.
#[derive(Debug, Subcommand)]
pub enum Stock {
    /// Set the stock on hand of every product in the file, as counted
    Import {
        /// The file; `-` is standard input
        file: PathBuf,
        /// Skip invalid lines and import the others
        #[arg(long)]
        skip_bad: bool,
        /// Import only if there are no products yet; else change nothing, and exit with 0
        #[arg(long)]
        if_empty: bool,
        /// Where the ledger is
        #[command(flatten)]
        nats: Nats,
    },
    /// Remove products of which nothing is on hand and nothing is reserved
    Remove {
        /// Their product ids
        #[arg(required_unless_present = "zero", conflicts_with = "zero")]
        products: Vec<String>,
        /// All such products
        #[arg(long)]
        zero: bool,
        /// Print which, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Where the ledger is
        #[command(flatten)]
        nats: Nats,
    },
    /// Write the stock on hand of every product
    Export {
        /// The file, which is replaced and readable by its owner only; `-` is standard output
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
    pub connection: nats::Options,
    /// Whether missing streams are created at start
    #[arg(long, env = "GW_PROVISION", value_enum, default_value_t = Provision::Auto)]
    pub provision: Provision,
    /// Replicas of the streams that are created: 1, 3 or 5
    #[arg(long, env = "GW_STREAM_REPLICAS", default_value_t = 1, value_parser = replicas)]
    pub replicas: u8,
    /// Ledger entries between two snapshots
    #[arg(long, env = "GW_SNAPSHOT_EVERY", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub snapshot_every: u64,
    /// Most products: a change of stock that would add more is refused. `stock remove` makes room
    #[arg(long, env = "GW_MAX_PRODUCTS", default_value_t = PRODUCTS, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_products: u32,
    /// Most ids of adjustments that are remembered, for GW_ID_HORIZON
    #[arg(long, env = "GW_MAX_ADJUSTMENTS", default_value_t = ADJUSTMENTS, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_adjustments: u32,
    /// Most reservations that are kept, finished ones included for GW_ID_HORIZON
    #[arg(long, env = "GW_MAX_RESERVATIONS", default_value_t = RESERVATIONS, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_reservations: u32,
}

/// Together they fit into 768 MiB, including the copy that is made for a snapshot.
const PRODUCTS: u32 = 400_000;
const ADJUSTMENTS: u32 = 400_000;
const RESERVATIONS: u32 = 1_800_000;

impl Nats {
    /// The bounds of what the stock keeps.
    pub fn bounds(&self) -> Amounts {
        let number = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        Amounts {
            products: number(self.max_products),
            adjustments: number(self.max_adjustments),
            reservations: number(self.max_reservations),
        }
    }
}

/// How long callers may repeat a request without an answer.
const HORIZON: Duration = Duration::from_secs(24 * 3_600);
/// The least that is of any use.
const LEAST_HORIZON: Duration = Duration::from_secs(60);

/// Without a horizon, every repeated request would be executed again.
fn horizon(text: &str) -> Result<Duration, String> {
    between(hours(text)?, LEAST_HORIZON, Duration::MAX).map_err(|error| {
        format!("{error}: a request that is repeated later is executed again; use at least 24h in production")
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

/// Whether missing streams are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Provision {
    /// Create what is missing
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
    /// Address of grpc.health.v1; port 0 takes a free one
    #[arg(long, env = "GW_HEALTH_ADDR", default_value = "127.0.0.1:50052")]
    pub health_addr: SocketAddr,
    /// Address of /metrics, /healthz and /livez over HTTP; port 0 takes a free one
    #[arg(long, env = "GW_HTTP_ADDR", default_value = "127.0.0.1:8081", value_name = "HOST:PORT")]
    pub http_addr: SocketAddr,
    /// Host names that metrics are served for, in addition to this machine's, separated by commas; `.NAME` matches all
    /// of its subdomains
    #[arg(long, env = "GW_HTTP_HOSTS", value_delimiter = ',', value_name = "HOST")]
    pub http_hosts: Vec<String>,
    /// Where traces go
    #[command(flatten)]
    pub traces: telemetry::trace::Options,
    /// How long a reservation holds without an order; 0: until it is released
    #[arg(long, env = "GW_RESERVATION_TTL", default_value = "2m", value_parser = seconds, value_name = "DURATION")]
    pub reservation_ttl: Duration,
    /// Interval at which expired reservations are looked for
    #[arg(long, alias = "expiry-interval-ms", env = "GW_EXPIRY_INTERVAL", default_value = "1s", value_parser = pause, value_name = "DURATION")]
    pub expiry_interval: Duration,
    /// How long the ids of finished orders and of adjustments are remembered; at least 24h in production
    #[arg(long, env = "GW_ID_HORIZON", default_value = "24h", value_parser = horizon, value_name = "DURATION")]
    pub id_horizon: Duration,
    /// Deliveries of an order event before it becomes a dead letter
    #[arg(long, env = "GW_MAX_DELIVER", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..))]
    pub max_deliver: i64,
    /// Most commands that the ledger decides in one batch
    #[arg(long, env = "GW_BATCH", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// How long work in progress may take after SIGTERM
    #[arg(long, env = "GW_DRAIN_TIMEOUT", default_value = "20s", value_parser = seconds, value_name = "DURATION")]
    pub drain_timeout: Duration,
}

impl Serve {
    /// Every configuration error that a start would refuse, found without binding or connecting.
    pub fn faults(&self) -> Vec<String> {
        let mut found: Vec<String> = self.nats.connection.faults().iter().map(ToString::to_string).collect();
        found.extend(self.traces.check().err().map(|error| telemetry::log::chain(&error)));
        if self.health_addr == self.http_addr && self.http_addr.port() != 0 {
            let address = self.http_addr;
            found.push(format!("GW_HEALTH_ADDR and GW_HTTP_ADDR are both {address}: give each its own port"));
        }
        found
    }

    /// Warnings about settings that are allowed.
    pub fn warnings(&self) -> Option<String> {
        (self.id_horizon < HORIZON).then(|| {
            let known = cli::units::shown(self.id_horizon);
            format!(
                "GW_ID_HORIZON is {known}: a change of stock or an order that is repeated later is executed again; \
                 callers may repeat for a day"
            )
        })
    }

    /// The defaults, for a server at this URL, with free ports.
    pub fn at(nats_url: &str) -> Serve {
        Serve {
            nats: Nats {
                connection: nats::Options::at(nats_url),
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
