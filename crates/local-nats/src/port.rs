//! Chooses ports for servers. Must not depend on what listens on them.
//!
//! A port that the kernel assigns (port 0) may go to another program while its server is down, or between choosing
//! it and listening on it; with many servers at a time, tests do meet that. So ours come from a range that kernels do
//! not assign from, and no two in a process are the same.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::error::Error;
use crate::wait::until;

/// Kernels assign ports from 32768 (Linux) or 49152 (macOS) on; Kubernetes uses ports from 30000 on.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A port may be held for a moment by its last user.
const FREE: Duration = Duration::from_secs(2);

/// A port of 127.0.0.1 that nothing listens on, and that this process will not be given again soon. For ports that are
/// announced before they are listened on, such as the routes of a cluster.
///
/// # Errors
/// Ten thousand ports are taken.
pub fn spare_port() -> Result<u16, Error> {
    /// Starts at random, so that processes do not follow each other through the range.
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(RandomState::new().hash_one(()) as u16));
    let mut candidates = (0..COUNT).map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT);
    candidates.find(|port| listen(*port).is_some()).ok_or(Error::PortTaken(FIRST))
}

/// Waits until a server could listen on the port. nats-server would report a taken port only in its log.
pub(crate) fn free(port: u16) -> Result<(), Error> {
    until(FREE, || listen(port)).map(drop).ok_or(Error::PortTaken(port))
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_port_is_not_given_twice_nor_while_it_is_taken() {
        let first = spare_port().unwrap();
        let next = FIRST + (first + 1 - FIRST) % COUNT;
        let _other = listen(next);
        let second = spare_port().unwrap();
        assert!(second != first && second != next, "{first} {next} {second}");
    }
}
