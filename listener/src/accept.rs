//! Accepts connections, as many as there are seats, and goes on when that fails. Must never read or write.

use std::time::Duration;

use telemetry::Quota;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::seats::{Seat, Seats};

/// When the process has no file descriptor left, accepting fails at once, again and again.
const PAUSE: Duration = Duration::from_millis(50);

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
                Ok((stream, _)) => {
                    // A client whose connection is closed before a word was said tries another instance.
                    let Some(seat) = self.seats.take() else { continue };
                    // Answers are small: waiting to fill a packet would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY");
                    }
                    return (stream, seat);
                }
                Err(error) => {
                    if self.lines.take() {
                        tracing::warn!(%error, "a connection could not be accepted");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}
