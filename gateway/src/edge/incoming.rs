//! Accepts connections, as many as there are seats, shakes hands where there is TLS, and goes on when that fails. One
//! whose client does not begin to speak in time is closed. Must never look into what is said, but for how
//! much of it there is.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use telemetry::{Page, Source};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::patrol::Patrol;
use super::tls;
use crate::auth::Badge;

/// When the process has no file descriptor left, accepting fails at once, again and again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(5);
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

/// How connections are encrypted.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The latest certificate and key.
    pub latest: watch::Receiver<Arc<ServerConfig>>,
    /// Handshakes under way. One more ends the oldest: whoever means it is done within a moment, and whoever does not
    /// cannot keep others out.
    pub handshakes: usize,
}

/// A listener, and who stands at its door.
pub(super) struct Door {
    listener: TcpListener,
    seats: Seats,
    tls: Option<Tls>,
    handshakes: JoinSet<Option<Guest>>,
    /// Of handshakes, the oldest first.
    under_way: VecDeque<AbortHandle>,
}

impl Door {
    pub(super) fn new(listener: TcpListener, seats: Seats, tls: Option<Tls>) -> Door {
        Door { listener, seats, tls, handshakes: JoinSet::new(), under_way: VecDeque::new() }
    }

    /// The next connection.
    pub(super) async fn next(&mut self) -> Guest {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Some(guest)) => return guest,
                    // It failed, or it was ended.
                    Ok(None) | Err(_) => continue,
                },
            };
            match accepted {
                Ok((stream, _)) => {
                    // A client whose connection is closed before a word was said tries another gateway.
                    let Some(seat) = self.seats.take() else { continue };
                    // Answers are small: waiting to fill a packet would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY");
                    }
                    match &self.tls {
                        None => return Guest::new(Wire::Plain(stream), None, seat),
                        Some(tls) => {
                            let (config, most) = (tls.latest.borrow().clone(), tls.handshakes);
                            self.begin(shake(stream, config, seat), most);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn begin(&mut self, handshake: impl Future<Output = Option<Guest>> + Send + 'static, most: usize) {
        if self.under_way.len() >= 2 * most || self.handshakes.len() >= most {
            self.under_way.retain(|handshake| !handshake.is_finished());
        }
        if self.handshakes.len() >= most
            && let Some(oldest) = self.under_way.pop_front()
        {
            oldest.abort();
        }
        self.under_way.push_back(self.handshakes.spawn(handshake));
    }
}

async fn shake(stream: TcpStream, config: Arc<ServerConfig>, seat: OwnedSemaphorePermit) -> Option<Guest> {
    let peer = stream.peer_addr().ok();
    let shaken = match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) if tls::speaks(stream.get_ref().1) => Ok(stream),
        Ok(Ok(_)) => Err(Error::other("the client does not ask for HTTP/2 (ALPN h2)")),
        Ok(Err(error)) => Err(error),
        Err(late) => Err(late.into()),
    };
    match shaken {
        Ok(stream) => {
            let badge = tls::badge(stream.get_ref().1);
            Some(Guest::new(Wire::Tls(Box::new(stream)), badge, seat))
        }
        Err(error) => {
            tracing::debug!(%error, peer = peer.map(tracing::field::display), "a handshake failed");
            None
        }
    }
}

/// A connection with its seat.
pub(super) struct Guest {
    wire: Wire,
    badge: Option<Arc<Badge>>,
    /// What it has still to say, and until when.
    silent: Option<(usize, Pin<Box<Sleep>>)>,
    patrol: Patrol,
    _seat: OwnedSemaphorePermit,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Does the same with either.
macro_rules! either {
    ($guest:expr, $wire:ident => $do:expr) => {
        match &mut $guest.wire {
            Wire::Plain($wire) => $do,
            Wire::Tls($wire) => $do,
        }
    };
}

impl Guest {
    fn new(wire: Wire, badge: Option<Arc<Badge>>, seat: OwnedSemaphorePermit) -> Guest {
        let silent = Some((GREETING, Box::pin(sleep(HELLO))));
        Guest { wire, badge, silent, patrol: Patrol::new(), _seat: seat }
    }

    /// What the client's certificate says of it.
    pub(super) fn badge(&self) -> Option<Arc<Badge>> {
        self.badge.clone()
    }

    fn count(&mut self, wrote: Poll<Result<usize>>) -> Poll<Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = wrote {
            self.patrol.wrote(bytes);
        }
        wrote
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        ready!(self.patrol.pass(context));
        let before = buffer.filled().len();
        let read = either!(self, wire => Pin::new(wire).poll_read(context, buffer));
        self.patrol.read(&buffer.filled()[before..], context);
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
        let wrote = either!(self, wire => Pin::new(wire).poll_write(context, bytes));
        self.count(wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        either!(self, wire => Pin::new(wire).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        either!(self, wire => Pin::new(wire).poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let wrote = either!(self, wire => Pin::new(wire).poll_write_vectored(context, parts));
        self.count(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(wire) => wire.is_write_vectored(),
            Wire::Tls(wire) => wire.is_write_vectored(),
        }
    }
}
