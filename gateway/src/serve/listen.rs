//! Listening sockets: one address, one socket per thread; the kernel distributes connections over them. Must not depend
//! on what is served.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

/// The listen backlog, in connections.
const BACKLOG: i32 = 1_024;

/// `count` sockets that listen on one address; port 0: any free port. Errors name `flag`.
pub(super) fn many(address: SocketAddr, count: usize, flag: &str) -> anyhow::Result<Vec<TcpListener>> {
    let refused = || format!("cannot listen on {address} (choose another address: {flag})");
    let first = Bound::alone(address).with_context(refused)?;
    let address = first.0.local_addr()?.as_socket().context("the socket has no address")?;
    let mut sockets = vec![first];
    for _ in 1..count {
        // If the kernel does not support SO_REUSEPORT, threads share the first socket.
        let other = Bound::beside(address).or_else(|_| sockets[0].0.try_clone().map(Bound));
        sockets.push(other.with_context(refused)?);
    }
    sockets.into_iter().map(|socket| socket.listen().with_context(refused)).collect()
}

/// A socket that listens on an address.
pub(super) fn one(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    many(address, 1, flag)?.pop().context("no socket")
}

/// Checks that a gateway could listen on this address; the error names the flag to change.
pub fn check_free(address: SocketAddr, flag: &str) -> anyhow::Result<()> {
    one(address, flag).map(drop)
}

/// A bound socket.
struct Bound(Socket);

impl Bound {
    /// Binds an address that no other process uses, and only then sets SO_REUSEPORT: otherwise a second gateway could
    /// bind it too, and would get half of the connections.
    fn alone(address: SocketAddr) -> std::io::Result<Bound> {
        let socket = open(address)?;
        socket.bind(&address.into())?;
        socket.set_reuse_port(true)?;
        Ok(Bound(socket))
    }

    /// Binds an address that this process already uses.
    fn beside(address: SocketAddr) -> std::io::Result<Bound> {
        let socket = open(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        Ok(Bound(socket))
    }

    fn listen(self) -> std::io::Result<TcpListener> {
        self.0.listen(BACKLOG)?;
        Ok(self.0.into())
    }
}

fn open(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const FREE: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

    #[test]
    fn threads_share_one_address() {
        let listeners = many(FREE, 3, "--x").unwrap();
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert_eq!(listeners.len(), 3);
        assert!(addresses.iter().all(|address| *address == addresses[0] && address.port() != 0));
    }

    #[test]
    fn an_address_in_use_is_refused_with_the_flag_to_change() {
        let listeners = many(FREE, 2, "--x").unwrap();
        let address = listeners[0].local_addr().unwrap();
        let error = format!("{:#}", many(address, 2, "--x").unwrap_err());
        assert!(error.contains("--x") && error.contains(&address.to_string()), "{error}");
        drop(listeners);
        assert_eq!(many(address, 2, "--x").unwrap().len(), 2);
    }
}
