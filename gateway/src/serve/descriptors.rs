//! Connection limits: how many file descriptors a gateway needs, and whether the process may open them. Must not open
//! any.

use anyhow::bail;
use listener::{ConnectionLimit, LEAVING, WhenFull, descriptors};
use telemetry::{Exposition, Source};

use crate::config::{MAX_CONNECTIONS, Serve};

/// Connection limits of GW_HTTP_ADDR and of GW_HEALTH_ADDR.
const HTTP: u32 = 256;
const HEALTH: u32 = 128;
/// Descriptors per thread: connections to NATS, sockets and the runtime's. A new connection is opened before the old
/// one is closed.
const THREAD: u64 = 8;
/// Standard streams, reloads of certificates and keys, traces, and a margin.
const FILES: u64 = 64;
/// The minimum of client connections.
const LEAST: u64 = 16;

/// The connection limits of all ports. Clones share them.
#[derive(Clone)]
pub(super) struct DescriptorBudget {
    pub(super) grpc: ConnectionLimit,
    pub(super) http: ConnectionLimit,
    pub(super) health: ConnectionLimit,
}

impl DescriptorBudget {
    /// Raises the limit of open files of the process, and divides it among the ports; an error if it is too low.
    pub(super) fn prepare(config: &Serve) -> anyhow::Result<DescriptorBudget> {
        let reserved = reserved(config);
        let wanted = config.limits.max_connections;
        let limit = descriptors::raise(reserved + u64::from(wanted.unwrap_or(MAX_CONNECTIONS)));
        let connections = connections(wanted, reserved, limit)?;
        tracing::info!(open_files = limit, reserved, connections, "limits");
        Ok(DescriptorBudget {
            grpc: ConnectionLimit::new("grpc", connections, "GW_MAX_CONNECTIONS", WhenFull::Yield),
            http: ConnectionLimit::new("http", HTTP, "this limit is fixed", WhenFull::Evict),
            health: ConnectionLimit::new("health", HEALTH, "this limit is fixed", WhenFull::Evict),
        })
    }
}

impl Source for DescriptorBudget {
    fn collect(&self, page: &mut Exposition) {
        for seats in [&self.grpc, &self.http, &self.health] {
            seats.collect(page);
        }
        let taken = self.grpc.taken_count() as f64;
        page.gauge("gateway_connections", "Open client connections.", &[], taken);
        let refused = self.grpc.refused();
        page.counter(
            "gateway_connections_refused_total",
            "Client connections that were refused.",
            &[],
            refused,
        );
    }
}

/// Checks that the process may open enough connections.
///
/// # Errors
/// If the limit of open files is too low; the error says what to change.
pub fn check(config: &Serve) -> anyhow::Result<()> {
    DescriptorBudget::prepare(config).map(drop)
}

/// Descriptors for everything except client connections. Connections that are evicted to make room count twice.
fn reserved(config: &Serve) -> u64 {
    let health = if config.health_addr.is_some() { HEALTH } else { 0 };
    let threads = u64::try_from(config.thread_count()).unwrap_or(u64::MAX).saturating_add(2);
    FILES + LEAVING as u64 + THREAD * threads + 2 * u64::from(HTTP + health)
}

/// The limit of client connections.
fn connections(wanted: Option<u32>, reserved: u64, limit: u64) -> anyhow::Result<u32> {
    let left = limit.saturating_sub(reserved);
    let most = u64::from(wanted.unwrap_or(MAX_CONNECTIONS));
    let needed = reserved + most;
    if left < LEAST || wanted.is_some() && left < most {
        bail!(
            "GW_MAX_CONNECTIONS={most} needs {needed} open files, {reserved} of them for NATS, HTTP, health and files, \
             but this process may have {limit} (ulimit -n, LimitNOFILE): raise that limit, or set \
             GW_MAX_CONNECTIONS to at most {}",
            left
        );
    }
    if left < most {
        tracing::warn!(
            open_files = limit,
            connections = left,
            "fewer connections than the default are accepted, because the limit of open files is low: raise it \
             (ulimit -n, LimitNOFILE) to {needed}, or set GW_MAX_CONNECTIONS"
        );
    }
    Ok(u32::try_from(most.min(left)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_connections_than_the_process_may_have_are_refused_and_it_says_what_to_do() {
        assert_eq!(connections(Some(500), 524, 1_024).unwrap(), 500);
        let error = connections(Some(501), 524, 1_024).unwrap_err().to_string();
        for part in
            ["GW_MAX_CONNECTIONS=501", "1025 open files", "may have 1024", "ulimit -n", "to at most 500"]
        {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn where_nobody_said_how_many_there_are_as_many_as_fit() {
        assert_eq!(connections(None, 524, 1_024).unwrap(), 500);
        assert_eq!(connections(None, 524, 1 << 20).unwrap(), MAX_CONNECTIONS);
        assert!(connections(None, 1_020, 1_024).is_err());
    }

    #[test]
    fn what_is_reserved_holds_all_that_is_no_clients() {
        let mut config = Serve::at("nats://127.0.0.1:4222");
        config.threads = 4;
        let without = reserved(&config);
        config.health_addr = Some(([127, 0, 0, 1], 0).into());
        assert_eq!(reserved(&config) - without, 2 * u64::from(HEALTH));
        assert!(without < 1_024 - LEAST, "a gateway starts with the limit that most systems have");
    }
}
