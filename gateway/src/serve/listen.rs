//! Listening sockets: one address, a socket per thread, and the kernel spreads connections over them. Must never
//! know what is served.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// `count` sockets that listen on one address; port 0 stands for a free one. `flag` is named if that is not possible.
pub(super) fn many(address: SocketAddr, count: usize, flag: &str) -> anyhow::Result<Vec<TcpListener>> {
    let refused = || format!("cannot listen on {address} (another address: {flag})");
    let first = Bound::alone(address).with_context(refused)?;
    let address = first.0.local_addr()?.as_socket().context("the socket has no address")?;
    let mut sockets = vec![first];
    for _ in 1..count {
        // Where the kernel does not share ports between sockets, threads share the first.
        let other = Bound::beside(address).or_else(|_| sockets[0].0.try_clone().map(Bound));
        sockets.push(other.with_context(refused)?);
    }
    sockets.into_iter().map(|socket| socket.listen().with_context(refused)).collect()
}

/// A socket that listens on an address.
pub(super) fn one(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    many(address, 1, flag)?.pop().context("no socket")
}

/// Whether a gateway could listen on this address; the error names the flag to change.
pub fn check_free(address: SocketAddr, flag: &str) -> anyhow::Result<()> {
    one(address, flag).map(drop)
}

/// A socket that has its address.
struct Bound(Socket);

impl Bound {
    /// Takes an address that nobody has. Only then may it be shared: if it were shared from the start, a second
    /// gateway would take it too, and get half of the connections.
    fn alone(address: SocketAddr) -> std::io::Result<Bound> {
        let socket = open(address)?;
        socket.bind(&address.into())?;
        socket.set_reuse_port(true)?;
        Ok(Bound(socket))
    }

    /// Shares an address that we have.
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
    // A restart must not wait for connections of the last run to be forgotten.
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
