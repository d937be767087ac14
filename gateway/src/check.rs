//! `gateway config check`: reports everything that `serve` would refuse at start, all at once. Must not bind, connect,
//! or start anything.

use std::net::SocketAddr;

use cli::Setting;

use crate::config::Serve;
use crate::config::command::{Config, ConfigCommand};
use crate::contracts;
use crate::serve::check_room;
use server::security;

/// Prints the values in force, if requested, and all problems, including those already found.
///
/// # Errors
/// If there is any problem.
pub async fn run(config: Config, settings: &[Setting], mut problems: Vec<String>) -> anyhow::Result<()> {
    let ConfigCommand::Check(asked) = config.command;
    problems.extend(faults(&asked.serve).await);
    Ok(cli::check::tell(settings, asked.print, &problems)?)
}

/// Everything that `serve` would refuse at start.
async fn faults(config: &Serve) -> Vec<String> {
    let own = [
        check_room(config),
        config.check_exposure(),
        config.check_bucket(),
        config.limits.budget().map(drop),
        config.traces.check(),
    ];
    let mut found: Vec<anyhow::Error> = own.into_iter().filter_map(Result::err).collect();
    match config.catalog() {
        Ok(catalog) => {
            let mut access = config.access.clone();
            if config.bucket.catalog_bucket.is_none() {
                found.extend(contracts::ready_on(&catalog, &config.ready_on).err());
            } else {
                // Their scopes may be those of contracts in the bucket, which is not read here.
                (access.api_keys, access.tls_clients, access.tls_client_scopes) = (None, None, Vec::new());
            }
            found.extend(security::faults(&access, &config.tls, &catalog).await);
        }
        // Scopes cannot be judged without it.
        Err(error) => found.push(error),
    }
    found.extend(config.nats.faults().into_iter().map(anyhow::Error::from));
    let told = found.iter().map(telemetry::log::chain);
    told.chain(addresses(config)).collect()
}

/// Addresses that are configured twice.
fn addresses(config: &Serve) -> Vec<String> {
    let all = [
        ("GW_GRPC_ADDR", Some(config.grpc_addr)),
        ("GW_HTTP_ADDR", Some(config.http_addr)),
        ("GW_HEALTH_ADDR", config.health_addr),
    ];
    let all: Vec<(&str, SocketAddr)> = all
        .into_iter()
        .filter_map(|(name, address)| Some((name, address.filter(|a| a.port() != 0)?)))
        .collect();
    let twice = |at: usize| {
        let (name, address) = all[at];
        let before = all[..at].iter().find(|(_, other)| *other == address)?;
        Some(format!("{} and {name} are both {address}: use different ports", before.0))
    };
    (0..all.len()).filter_map(twice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_given_twice_is_refused_unless_any_port_will_do() {
        let mut config = Serve::at("nats://127.0.0.1:4222");
        assert!(addresses(&config).is_empty());
        config.grpc_addr = "127.0.0.1:9".parse().unwrap();
        config.http_addr = config.grpc_addr;
        let [fault] = &addresses(&config)[..] else { panic!("one") };
        assert!(fault.contains("GW_GRPC_ADDR and GW_HTTP_ADDR"), "{fault}");
    }
}
