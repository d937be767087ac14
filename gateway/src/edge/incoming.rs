//! Accepts connections, and goes on when that fails. Must never look into one.

use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::net::{TcpListener, TcpStream};

/// When the process has no file descriptor left, accepting fails at once, again and again.
const PAUSE: Duration = Duration::from_millis(50);

/// The connections of a listener.
pub(super) fn connections(listener: TcpListener) -> impl Stream<Item = std::io::Result<TcpStream>> {
    unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Answers are small: waiting to fill a packet would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY");
                    }
                    return Some((Ok(stream), listener));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}
