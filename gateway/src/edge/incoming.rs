//! Shakes hands with connections where there is TLS, and goes on when that fails. Must never look into what is said.

use std::collections::VecDeque;
use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use listener::{Acceptor, Line, Seat};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls;
use crate::auth::{Badge, Standing, Trust};

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How connections are encrypted.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The latest certificate and key.
    pub latest: watch::Receiver<Arc<ServerConfig>>,
    /// Handshakes under way. One more ends the oldest: whoever means it is done within a moment, and whoever does not
    /// cannot keep others out.
    pub handshakes: usize,
    /// Whose clients are believed, where they are asked for a certificate.
    pub(crate) trust: Option<Trust>,
}

/// A listener, and who stands at its door.
pub(super) struct Door {
    acceptor: Acceptor,
    tls: Option<Tls>,
    handshakes: JoinSet<Option<Guest>>,
    /// Of handshakes, the oldest first.
    under_way: VecDeque<AbortHandle>,
}

impl Door {
    pub(super) fn new(acceptor: Acceptor, tls: Option<Tls>) -> Door {
        Door { acceptor, tls, handshakes: JoinSet::new(), under_way: VecDeque::new() }
    }

    /// The next connection.
    pub(super) async fn next(&mut self) -> Guest {
        loop {
            let (stream, seat) = tokio::select! {
                accepted = self.acceptor.next() => accepted,
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Some(guest)) => return guest,
                    // It failed, or it was ended.
                    Ok(None) | Err(_) => continue,
                },
            };
            match &self.tls {
                None => return plain(stream, seat),
                Some(tls) => {
                    let most = tls.handshakes;
                    self.begin(shake(stream, tls.clone(), seat), most);
                }
            }
        }
    }

    /// Closes the socket, and returns those who had connected by then. Where there is TLS they have not sent a call yet:
    /// they, and handshakes under way, end, and their clients go elsewhere.
    pub(super) fn finish(self) -> Vec<Guest> {
        let last = self.acceptor.finish();
        if self.tls.is_some() {
            return Vec::new();
        }
        last.into_iter().map(|(stream, seat)| plain(stream, seat)).collect()
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

fn plain(stream: TcpStream, seat: Seat) -> Guest {
    Guest { line: Line::new(Wire::Plain(stream), seat), badge: None, standing: None }
}

async fn shake(stream: TcpStream, tls: Tls, seat: Seat) -> Option<Guest> {
    let asked = tls.trust.as_ref().map(Trust::number);
    let config = tls.latest.borrow().clone();
    let peer = stream.peer_addr().ok();
    let shaken = match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) if tls::speaks(stream.get_ref().1) => Ok(stream),
        Ok(Ok(_)) => Err(Error::other("the client does not ask for HTTP/2 (ALPN h2)")),
        Ok(Err(error)) => Err(error),
        Err(late) => Err(late.into()),
    };
    match shaken {
        Ok(stream) => {
            let (badge, chain) = (tls::badge(stream.get_ref().1), tls::chain(stream.get_ref().1));
            let standing = tls.trust.zip(asked).zip(chain);
            let standing = standing.map(|((trust, asked), chain)| trust.standing(asked, chain));
            Some(Guest { line: Line::new(Wire::Tls(Box::new(stream)), seat), badge, standing })
        }
        Err(error) => {
            tracing::debug!(%error, peer = peer.map(tracing::field::display), "a handshake failed");
            None
        }
    }
}

/// A connection, with what its client's certificate says.
pub(super) struct Guest {
    pub(super) line: Line<Wire>,
    pub(super) badge: Option<Arc<Badge>>,
    /// How long it is believed.
    pub(super) standing: Option<Standing>,
}

/// What bytes travel on.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Does the same with either.
macro_rules! either {
    ($self:expr, $wire:ident => $do:expr) => {
        match &mut *$self {
            Wire::Plain($wire) => $do,
            Wire::Tls($wire) => $do,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        either!(self, wire => Pin::new(wire).poll_read(context, buffer))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        either!(self, wire => Pin::new(wire).poll_write(context, bytes))
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
        either!(self, wire => Pin::new(wire).poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Plain(wire) => wire.is_write_vectored(),
            Wire::Tls(wire) => wire.is_write_vectored(),
        }
    }
}
