//! Room for connections: how many file descriptors a gateway needs, and whether the process may have them. Must never
//! open one.

use anyhow::bail;
use listener::{Full, LEAVING, Seats, descriptors};
use telemetry::{Page, Source};

use crate::config::{MAX_CONNECTIONS, Serve};

/// Connections to GW_HTTP_ADDR and to GW_HEALTH_ADDR.
const HTTP: u32 = 256;
const HEALTH: u32 = 128;
/// Connections to NATS, sockets and what the runtime needs: for each thread. A new connection is made before the old one
/// is forgotten.
const THREAD: u64 = 8;
/// Standard streams, certificates and keys that are read again, traces, and a margin.
const FILES: u64 = 64;
/// With fewer connections of clients nothing can be served.
const LEAST: u64 = 16;

/// The seats of every port. Clones share them.
#[derive(Clone)]
pub(super) struct Room {
    pub(super) grpc: Seats,
    pub(super) http: Seats,
    pub(super) health: Seats,
}

impl Room {
    /// Raises the process's limit, and shares it out; an error if it is too low.
    pub(super) fn prepare(config: &Serve) -> anyhow::Result<Room> {
        let reserved = reserved(config);
        let wanted = config.limits.max_connections;
        let limit = descriptors::raise(reserved + u64::from(wanted.unwrap_or(MAX_CONNECTIONS)));
        let connections = connections(wanted, reserved, limit)?;
        tracing::info!(open_files = limit, reserved, connections, "limits");
        Ok(Room {
            grpc: Seats::new("grpc", connections, "GW_MAX_CONNECTIONS", Full::Yield),
            http: Seats::new("http", HTTP, "this limit is fixed", Full::Evict),
            health: Seats::new("health", HEALTH, "this limit is fixed", Full::Evict),
        })
    }
}

impl Source for Room {
    fn tell(&self, page: &mut Page) {
        for seats in [&self.grpc, &self.http, &self.health] {
            seats.tell(page);
        }
        let taken = self.grpc.taken_count() as f64;
        page.level("gateway_connections", "Connections of clients.", &[], taken);
        let refused = self.grpc.refused();
        page.count("gateway_connections_refused_total", "Connections that were turned away.", &[], refused);
    }
}

/// Whether there is room for the connections that are wanted.
///
/// # Errors
/// What to change.
pub fn check(config: &Serve) -> anyhow::Result<()> {
    Room::prepare(config).map(drop)
}

/// Descriptors for everything but the connections of clients. Those that make room for others count twice.
fn reserved(config: &Serve) -> u64 {
    let health = if config.health_addr.is_some() { HEALTH } else { 0 };
    let threads = u64::try_from(config.thread_count()).unwrap_or(u64::MAX).saturating_add(2);
    FILES + LEAVING as u64 + THREAD * threads + 2 * u64::from(HTTP + health)
}

/// How many connections of clients there may be.
fn connections(wanted: Option<u32>, reserved: u64, limit: u64) -> anyhow::Result<u32> {
    let left = limit.saturating_sub(reserved);
    let most = u64::from(wanted.unwrap_or(MAX_CONNECTIONS));
    let needed = reserved + most;
    if left < LEAST || wanted.is_some() && left < most {
        bail!(
            "GW_MAX_CONNECTIONS={most} needs {needed} open files, {reserved} of them for NATS, HTTP, health and files, \
             but this process may have {limit} (ulimit -n, LimitNOFILE): raise that limit, or set GW_MAX_CONNECTIONS to \
             {} at the most",
            left
        );
    }
    if left < most {
        tracing::warn!(
            open_files = limit,
            connections = left,
            "fewer connections than usual are let in, as the limit of open files is low: raise it (ulimit -n, \
             LimitNOFILE) to {needed}, or set GW_MAX_CONNECTIONS"
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
            ["GW_MAX_CONNECTIONS=501", "1025 open files", "may have 1024", "ulimit -n", "to 500 at the most"]
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
