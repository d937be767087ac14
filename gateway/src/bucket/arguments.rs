//! The arguments of `gateway catalog`, and the bucket that they name. Must not run a command.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use catalog_bucket::{Bucket, BucketName, Digest, is_name};
use clap::{Args, Subcommand};
use nats::Connection;
use order_streams::replicas;
use tokio::time::Instant;

use crate::config::REPLICAS;
use crate::routes::Contracts;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// `gateway catalog`.
#[derive(Debug, Clone, Args)]
pub struct CatalogCommand {
    /// The command.
    #[command(subcommand)]
    pub command: BucketCommand,
}

/// The subcommands of `gateway catalog`.
#[derive(Debug, Clone, Subcommand)]
pub enum BucketCommand {
    /// Create the bucket, if it is missing, and check it
    Create(Create),
    /// Check contracts, compare them with what is active under a name, and make them active
    Push(Box<Push>),
    /// Write what is active under a name, a descriptor set
    Pull(Pull),
    /// List the names: digest, services, size, who changed it, and when
    List(Shown),
    /// The same, with the history of each name, and what is wrong
    Status(Shown),
}

/// Which bucket.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Bucket on NATS with contracts
    #[arg(long, env = "GW_CATALOG_BUCKET", value_parser = BucketName::parse, value_name = "NAME")]
    pub catalog_bucket: BucketName,
    /// Connection to NATS.
    #[command(flatten)]
    pub nats: nats::Options,
}

/// `gateway catalog create`.
#[derive(Debug, Clone, Args)]
pub struct Create {
    /// Replicas of the bucket: 3 survive the loss of a node, 1 does not
    #[arg(long, env = "GW_STREAM_REPLICAS", default_value_t = REPLICAS, value_parser = replicas, value_name = "N")]
    pub replicas: usize,
    /// The bucket.
    #[command(flatten)]
    pub place: Place,
}

/// `gateway catalog push`.
#[derive(Debug, Clone, Args)]
pub struct Push {
    /// The name of the contracts in the bucket
    #[arg(value_parser = name)]
    pub name: String,
    /// What is pushed.
    #[command(flatten)]
    pub contracts: Contracts,
    /// Push also what breaks clients of what is active
    #[arg(long)]
    pub allow_breaking: bool,
    /// Check and compare, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Who pushes it, for the history; default: the NATS user
    #[arg(long, value_name = "TEXT")]
    pub by: Option<String>,
    /// The bucket.
    #[command(flatten)]
    pub place: Place,
}

/// `gateway catalog pull`.
#[derive(Debug, Clone, Args)]
pub struct Pull {
    /// The name of the contracts in the bucket
    #[arg(value_parser = name)]
    pub name: String,
    /// The file; default: standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the set of this digest, not the active one
    #[arg(long, value_parser = Digest::parse, value_name = "DIGEST")]
    pub digest: Option<Digest>,
    /// The bucket.
    #[command(flatten)]
    pub place: Place,
}

/// `gateway catalog list` and `gateway catalog status`.
#[derive(Debug, Clone, Args)]
pub struct Shown {
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    /// The bucket.
    #[command(flatten)]
    pub place: Place,
}

impl Place {
    /// Does this with the bucket.
    pub(crate) async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&Bucket, Instant) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let link = Connection::connect(&self.nats, "gateway catalog").await?;
        let bucket = Bucket::new(link.clone(), self.catalog_bucket);
        let done = link.permitted(work(&bucket, Instant::now() + LIMIT)).await;
        done.context("this command is for the role catalog_publisher")?
    }
}

fn name(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 characters of [A-Za-z0-9_-]".to_owned()),
    }
}
