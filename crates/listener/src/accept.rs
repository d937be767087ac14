//! Accepts connections up to the connection limit, and continues after accept errors. Must not read or write.

use std::time::Duration;

use telemetry::LineQuota;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::limit::{ConnectionLimit, ConnectionPermit};

/// The pause after an error: without free file descriptors, accept fails immediately every time.
const PAUSE: Duration = Duration::from_millis(50);
/// How many connections are still accepted at shutdown: the length of the backlog. A flood cannot delay the shutdown.
const LAST: usize = 1_024;

/// A listening socket with its connection limit.
///
/// ```no_run
/// use listener::{Acceptor, ConnectionLimit, WhenFull};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # async fn example() -> std::io::Result<()> {
/// let socket = tokio::net::TcpListener::bind("127.0.0.1:7000").await?;
/// // The log names the variable that sets the limit.
/// let limit = ConnectionLimit::new("echo", 1_000, "ECHO_MAX_CONNECTIONS", WhenFull::Yield);
/// let acceptor = Acceptor::new(socket, limit);
/// loop {
///     let (mut stream, permit) = acceptor.next().await;
///     tokio::spawn(async move {
///         let mut bytes = [0; 1_024];
///         while let Ok(count @ 1..) = stream.read(&mut bytes).await {
///             if stream.write_all(&bytes[..count]).await.is_err() {
///                 break;
///             }
///         }
///         // Makes room for another connection.
///         drop(permit);
///     });
/// }
/// # }
/// ```
///
/// [`http1::serve`](crate::http1::serve) and [`http2::serve`](crate::http2::serve) are such loops.
pub struct Acceptor {
    listener: TcpListener,
    seats: ConnectionLimit,
    lines: LineQuota,
}

impl Acceptor {
    /// Accepts connections to this listener.
    pub fn new(listener: TcpListener, seats: ConnectionLimit) -> Acceptor {
        Acceptor { listener, seats, lines: LineQuota::default() }
    }

    /// The same, for a non-blocking standard socket.
    ///
    /// # Errors
    ///
    /// The runtime cannot wait for the socket, such as without a free file descriptor.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn from_std(listener: std::net::TcpListener, seats: ConnectionLimit) -> std::io::Result<Acceptor> {
        Ok(Acceptor::new(TcpListener::from_std(listener)?, seats))
    }

    /// The next connection within the limit. Cancel-safe. Errors are logged, and it goes on: connections over the limit
    /// are closed.
    pub async fn next(&self) -> (TcpStream, ConnectionPermit) {
        loop {
            match self.listener.accept().await {
                // A client whose connection is closed before any byte was sent tries another instance.
                Ok((stream, _)) => match seated(stream, &self.seats) {
                    Some(seated) => return seated,
                    None => continue,
                },
                Err(error) => {
                    if self.lines.take() {
                        tracing::warn!(%error, "cannot accept a connection");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Closes the socket, and returns the connections in its backlog: the kernel has established them, they may have
    /// sent a call, and closing the socket on them would reset them.
    pub fn finish(self) -> Vec<(TcpStream, ConnectionPermit)> {
        let Acceptor { listener, seats, .. } = self;
        let Ok(last) = listener.into_std() else { return Vec::new() };
        let waiting = std::iter::from_fn(|| last.accept().ok());
        let streams: Vec<_> = waiting.take(LAST).map(|(stream, _)| stream).collect();
        drop(last);
        let streams = streams.into_iter().filter_map(|stream| {
            stream.set_nonblocking(true).ok()?;
            TcpStream::from_std(stream).ok()
        });
        streams.filter_map(|stream| seated(stream, &seats)).collect()
    }
}

/// A stream that got a place within the connection limit.
fn seated(stream: TcpStream, seats: &ConnectionLimit) -> Option<(TcpStream, ConnectionPermit)> {
    let seat = seats.take()?;
    // Responses are small: waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    Some((stream, seat))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::limit::WhenFull;

    #[tokio::test]
    async fn who_has_connected_when_the_socket_is_closed_is_not_reset() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seats = ConnectionLimit::new("grpc", 3, "GW_MAX_CONNECTIONS", WhenFull::Yield);
        let acceptor = Acceptor::from_std(listener, seats).unwrap();
        // They stay in the backlog: the runtime has not polled the socket since.
        let mut clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        clients.iter_mut().for_each(|client| client.write_all(b"call").unwrap());
        let last = acceptor.finish();
        assert_eq!(last.len(), 3);
        for ((mut stream, _seat), client) in last.into_iter().zip(&mut clients) {
            let mut call = [0; 4];
            stream.read_exact(&mut call).await.unwrap();
            stream.write_all(&call).await.unwrap();
            client.read_exact(&mut call).unwrap();
            assert_eq!(&call, b"call");
        }
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
