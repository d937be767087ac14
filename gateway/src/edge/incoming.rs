//! Accepts connections, as many as there are seats, and goes on when that fails. One whose client does not begin to
//! speak in time is closed. Must never look into what is said.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use telemetry::{Page, Source};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// When the process has no file descriptor left, accepting fails at once, again and again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a client may take until it has begun to speak HTTP/2.
const HELLO: Duration = Duration::from_secs(10);
/// What it says then: the preface of 24 bytes, and the head of a frame.
const GREETING: usize = 33;
/// Of the connections that are turned away, each so many is logged.
const LOGGED: u64 = 1_000;

/// How many connections there may be. Clones share it.
#[derive(Debug, Clone)]
pub struct Seats {
    free: Arc<Semaphore>,
    most: u32,
    refused: Arc<AtomicU64>,
}

impl Seats {
    /// So many.
    pub fn new(most: u32) -> Seats {
        let free = Arc::new(Semaphore::new(most as usize));
        Seats { free, most, refused: Arc::default() }
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(seat) = self.free.clone().try_acquire_owned() {
            return Some(seat);
        }
        let refused = self.refused.fetch_add(1, Ordering::Relaxed);
        if refused.is_multiple_of(LOGGED) {
            tracing::warn!(
                limit = self.most,
                refused = refused + 1,
                "connections are turned away (MAX_CONNECTIONS)"
            );
        }
        None
    }
}

impl Source for Seats {
    fn tell(&self, page: &mut Page) {
        let taken = (self.most as usize).saturating_sub(self.free.available_permits()) as f64;
        page.level("gateway_connections", "Connections of clients.", &[], taken);
        let refused = self.refused.load(Ordering::Relaxed);
        page.count("gateway_connections_refused_total", "Connections that were turned away.", &[], refused);
    }
}

/// The connections of a listener.
pub(super) fn connections(listener: TcpListener, seats: Seats) -> impl Stream<Item = Result<Guest>> {
    unfold((listener, seats), |(listener, seats)| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // A client whose connection is closed before a word was said tries another gateway.
                    let Some(seat) = seats.take() else { continue };
                    // Answers are small: waiting to fill a packet would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY");
                    }
                    return Some((Ok(Guest::new(stream, seat)), (listener, seats)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    })
}

/// A connection with its seat.
pub(super) struct Guest {
    stream: TcpStream,
    /// What it has still to say, and until when.
    silent: Option<(usize, Pin<Box<Sleep>>)>,
    _seat: OwnedSemaphorePermit,
}

impl Guest {
    fn new(stream: TcpStream, seat: OwnedSemaphorePermit) -> Guest {
        Guest { stream, silent: Some((GREETING, Box::pin(sleep(HELLO)))), _seat: seat }
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some((missing, time)) = &mut self.silent else { return read };
        if read.is_pending() {
            ready!(time.as_mut().poll(context));
            return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client does not speak")));
        }
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            self.silent = None;
        }
        read
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Guest {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}
