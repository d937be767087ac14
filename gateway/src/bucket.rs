//! `gateway catalog`: contracts that lie on NATS, for gateways that serve them. Must not serve anything.

mod arguments;
mod push;
mod report;

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use catalog_bucket::Bucket;
use cli::Report;
use nats::Connection;

pub use self::arguments::{BucketCommand, CatalogCommand, Create, Place, Pull, Push, Shown};

/// Runs one of the commands.
///
/// # Errors
/// What is wrong with the contracts or the bucket; NATS cannot be reached, or does not permit it; or the result cannot be
/// written.
pub async fn run(command: CatalogCommand) -> anyhow::Result<()> {
    match command.command {
        BucketCommand::Create(wanted) => create(&wanted).await,
        BucketCommand::Push(wanted) => push::run(*wanted).await,
        BucketCommand::Pull(wanted) => pull(&wanted).await,
        BucketCommand::List(wanted) => report::run(&wanted, false).await,
        BucketCommand::Status(wanted) => report::run(&wanted, true).await,
    }
}

async fn create(wanted: &Create) -> anyhow::Result<()> {
    let Place { catalog_bucket: name, nats } = &wanted.place;
    let link = Connection::connect(nats, "gateway catalog").await?;
    let streams = link.permitted(catalog_bucket::create(&link, *name, wanted.replicas)).await;
    let streams = streams.context("this command is for the role provisioner")??;
    let mut report = Report::new();
    for config in &streams.found {
        let made = streams.made.contains(&config.name.as_str());
        let state = if made { "created" } else { "exists, configuration checked" };
        report.line(format_args!("{}: {state}", config.name));
    }
    for warning in streams.durability(nats.monitor()).await {
        cli::note!("warning: {warning}");
    }
    // The bucket exists even if this report cannot be written.
    Ok(())
}

async fn pull(wanted: &Pull) -> anyhow::Result<()> {
    let name = &wanted.name;
    let set = async |bucket: &Bucket, deadline| {
        let digest = match wanted.digest {
            Some(digest) => digest,
            None => match bucket.slot(name, deadline).await?.target {
                Some(target) => target.pointer(name)?.digest,
                None => bail!("the bucket {} has nothing under the name {name:?}", bucket.name()),
            },
        };
        Ok(bucket.set(&digest, deadline).await?)
    };
    let set = wanted.place.with(set).await?;
    match &wanted.output {
        Some(file) => std::fs::write(file, set).with_context(|| format!("{}", file.display())),
        None if std::io::stdout().is_terminal() => {
            bail!("a descriptor set is no text: name a file with --output")
        }
        None => {
            let mut out = std::io::stdout().lock();
            Ok(out.write_all(&set).and_then(|()| out.flush()).context("standard output")?)
        }
    }
}
