//! All commands except `dev`. Must not depend on more of a gateway than starting and stopping it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use nats::Connection;
use order_streams::ORDERS;
use tokio::time::{Instant, sleep, timeout};

use crate::config::keys::{Keys, KeysCommand};
use crate::config::{self, reachable};
use crate::contracts;
use crate::serve::Gateway;
use crate::signal::{Hangup, Stop};
use server::auth::apikey;
use server::client::{ClientOptions, told};
use server::health_client::GatewayClient;

/// Time that a second signal leaves to the work in flight.
const MOMENT: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(5);

/// Serves until SIGTERM or SIGINT, then drains. A second signal stops it immediately.
pub async fn serve(config: config::Serve) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let gateway = tokio::select! {
        gateway = Gateway::start(config) => gateway?,
        () = stop.asked() => return Ok(()),
    };
    let reloads = gateway.reloads();
    let _hangup = Hangup::listen(move || reloads.ask())?;
    until_stopped(gateway, async || stop.asked().await).await
}

/// Serves until `asked` returns, then drains; if it returns again, stops immediately.
async fn until_stopped(gateway: Gateway, mut asked: impl AsyncFnMut()) -> anyhow::Result<()> {
    tokio::select! {
        () = asked() => {}
        () = gateway.lost() => bail!("ORDERS was recreated or truncated: the next start reads it from the beginning"),
        failure = gateway.failed() => return Err(failure.into()),
    }
    let (in_hand, supervisor) = (gateway.in_hand(), gateway.supervisor());
    tokio::select! {
        () = gateway.drain() => supervisor.failure().map_or(Ok(()), |failure| Err(failure.into())),
        () = asked() => at_once(|| in_hand.none()).await,
    }
}

/// Handles a second signal: succeeds if no work is in flight, or if the work ends within a moment.
async fn at_once(done: impl Fn() -> bool) -> anyhow::Result<()> {
    let limit = Instant::now() + MOMENT;
    while !done() {
        if Instant::now() >= limit {
            bail!("stopped before calls in flight were answered");
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Checks the health of a gateway.
pub async fn healthcheck(config: config::Check) -> anyhow::Result<()> {
    // The health listener has no TLS, whatever the gRPC port uses.
    let target = match (config.health_addr, config.addr.parse()) {
        (Some(address), _) => ClientOptions::default().target(&reachable(address).to_string())?,
        (None, Ok(address)) => config.access.target(&reachable(address).to_string())?,
        (None, Err(_)) => config.access.target(&config.addr)?,
    };
    let (uri, within) = (target.uri.clone(), Duration::from_secs(config.within));
    let asked = async { GatewayClient::reach(target).await?.health(&config.service).await };
    let health = timeout(within, asked).await.map_err(|_| told::silent(&uri, within))??;
    match health {
        "SERVING" => Ok(()),
        other => bail!(
            "the gateway at {uri} reports {other}; /healthz at its HTTP address (GW_HTTP_ADDR) says why"
        ),
    }
}

/// Creates missing streams, checks all of them, and reports them.
pub async fn provision(config: config::Streams) -> anyhow::Result<()> {
    let link = Connection::connect(&config.nats, "gateway provision").await?;
    let streams = link.permitted(order_streams::open(&link, config.replicas, true)).await;
    let streams = streams.context("this command is for the role provisioner")??;
    let mut report = cli::Report::new();
    for name in order_streams::ALL {
        report.line(format_args!(
            "{name}: {}",
            if streams.made.contains(&name) { "created" } else { "exists, configuration checked" }
        ));
    }
    for warning in streams.durability(config.nats.monitor()).await {
        cli::note!("warning: {warning}");
    }
    let replicas = streams.config(ORDERS).map_or(1, |config| config.num_replicas);
    let identity = streams.identity(ORDERS);
    report.line(format_args!("ORDERS has the identity {identity} and {replicas} replica(s)"));
    // The streams exist even if this report cannot be written.
    Ok(())
}

/// Creates an API key, and prints it and its line for the file.
pub fn keys(config: Keys) -> anyhow::Result<()> {
    let KeysCommand::New(new) = config.command;
    let (wanted, catalog) = (new.key, contracts::read(&new.sources, true)?);
    let new = apikey::new(&catalog, &wanted.name, &wanted.scopes, wanted.customer.as_deref()).context(
        "the scopes are those of the order system, and of contracts that --proto or --descriptor-set name",
    )?;
    let mut report = cli::Report::new();
    report.line(format_args!("{}\n{}", *new.key, new.line));
    // The key is shown only once, so a failed write is an error.
    Ok(report.whole()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use server::supervisor::fault::Fault;

    #[tokio::test]
    async fn serve_ends_with_the_error_of_a_task_that_failed_also_during_the_drain() {
        let nats = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
        for drains in [false, true] {
            let mut config = config::Serve::at(nats.url());
            config.threads = 1;
            let gateway = Gateway::start(config).await.unwrap();
            let supervisor = gateway.supervisor();
            let inject = || supervisor.faults.inject("thread grpc-0", Fault::Panic);
            let mut signals = 0;
            let ended = until_stopped(gateway, async || {
                signals += 1;
                inject();
                if !drains || signals > 1 {
                    std::future::pending().await
                }
            });
            let ended = timeout(Duration::from_secs(60), ended).await.expect("it ends");
            let error = ended.unwrap_err().to_string();
            assert!(error.contains("\"thread grpc-0\" panicked"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_second_signal_is_no_failure_where_nothing_is_in_hand() {
        at_once(|| true).await.unwrap();
        let begun = Instant::now();
        at_once(|| begun.elapsed() > LOOK).await.unwrap();
        assert!(at_once(|| false).await.is_err());
    }
}
