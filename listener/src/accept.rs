//! Accepts connections, as many as there are seats, and goes on when that fails. Must never read or write.

use std::time::Duration;

use telemetry::Quota;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::seats::{Seat, Seats};

/// When the process has no file descriptor left, accepting fails at once, again and again.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections that are accepted at the end: as many as may wait to be. Whoever floods does not hold the end up.
const LAST: usize = 1_024;

/// A listening socket, and its seats.
pub struct Acceptor {
    listener: TcpListener,
    seats: Seats,
    lines: Quota,
}

impl Acceptor {
    /// Accepts what connects to this listener.
    pub fn new(listener: TcpListener, seats: Seats) -> Acceptor {
        Acceptor { listener, seats, lines: Quota::default() }
    }

    /// The same, of a socket that does not block.
    pub fn from_std(listener: std::net::TcpListener, seats: Seats) -> std::io::Result<Acceptor> {
        Ok(Acceptor::new(TcpListener::from_std(listener)?, seats))
    }

    /// The next connection that has a seat. Nothing is lost when this is dropped.
    pub async fn next(&self) -> (TcpStream, Seat) {
        loop {
            match self.listener.accept().await {
                // A client whose connection is closed before a word was said tries another instance.
                Ok((stream, _)) => match seated(stream, &self.seats) {
                    Some(seated) => return seated,
                    None => continue,
                },
                Err(error) => {
                    if self.lines.take() {
                        tracing::warn!(%error, "a connection could not be accepted");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Closes the socket, and returns those who had connected by then: to the kernel they are connected before they are
    /// accepted, they may have sent a call, and closing the socket on them resets it.
    pub fn finish(self) -> Vec<(TcpStream, Seat)> {
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

/// A stream with its seat, if there is one.
fn seated(stream: TcpStream, seats: &Seats) -> Option<(TcpStream, Seat)> {
    let seat = seats.take()?;
    // Answers are small: waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    Some((stream, seat))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::seats::Full;

    #[tokio::test]
    async fn who_has_connected_when_the_socket_is_closed_is_not_reset() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seats = Seats::new("grpc", 3, "GW_MAX_CONNECTIONS", Full::Yield);
        let acceptor = Acceptor::from_std(listener, seats).unwrap();
        // Nobody accepts them: the runtime has not looked at the socket since.
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
