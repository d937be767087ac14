//! Chooses the server for a reconnect: another one first. A frozen server accepts connections and stays silent, which
//! costs the whole connect timeout. Must not depend on why a connection was lost.

use async_nats::{Server, ServerAddr};
use parking_lot::Mutex;

/// The last server of one connection.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Option<ServerAddr>>);

impl Pool {
    /// The server to try next. `None` lets the library choose: for the first connection, and where there is only one
    /// server.
    pub(crate) fn next(&self, servers: &[Server]) -> Option<ServerAddr> {
        let mut last = self.0.lock();
        // The library chose the first server, the only one that it was ever connected to.
        let first = || servers.iter().find(|server| server.did_connect).map(|server| server.addr.clone());
        let left = last.take().or_else(first)?;
        let others: Vec<&Server> = servers.iter().filter(|server| server.addr != left).collect();
        let fewest = others.iter().map(|server| server.failed_attempts).min()?;
        let good: Vec<&Server> =
            others.into_iter().filter(|server| server.failed_attempts == fewest).collect();
        let turn = usize::try_from(crate::backoff::jitter(good.len() as u64 - 1)).unwrap_or_default();
        *last = good.get(turn).map(|server| server.addr.clone());
        last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, failed_attempts: usize, did_connect: bool) -> Server {
        let addr = name.parse().unwrap();
        Server { addr, failed_attempts, did_connect, is_discovered: false, last_error: None }
    }

    #[test]
    fn a_lost_connection_goes_to_another_server_than_the_one_it_was_lost_to() {
        for _ in 0..50 {
            let pool = Pool::default();
            let servers = [server("one", 0, false), server("two", 0, true), server("three", 0, false)];
            let second = pool.next(&servers).unwrap();
            assert_ne!(second, servers[1].addr);
            let third =
                pool.next(&servers.each_ref().map(|server| Server { did_connect: true, ..server.clone() }));
            assert_ne!(third, Some(second));
        }
    }

    #[test]
    fn servers_that_did_not_let_us_in_come_last() {
        for _ in 0..50 {
            let servers = [server("one", 1, false), server("two", 0, true), server("three", 0, false)];
            assert_eq!(Pool::default().next(&servers), Some(servers[2].addr.clone()));
        }
    }

    #[test]
    fn the_library_chooses_first_and_where_there_is_no_choice() {
        assert_eq!(Pool::default().next(&[server("one", 0, false), server("two", 0, false)]), None);
        let (pool, alone) = (Pool::default(), [server("one", 0, true)]);
        assert_eq!([pool.next(&alone), pool.next(&alone)], [None, None]);
    }
}
