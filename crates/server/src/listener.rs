//! Accepts connections, and performs TLS handshakes; a failed handshake does not stop the listener. Must not read
//! application data.

use std::collections::VecDeque;
use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use listener::{Acceptor, ConnectionPermit, LimitedIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls;
use crate::auth::{PeerIdentity, Standing, Trust};

/// Timeout of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// TLS of connections.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The latest certificate and key.
    pub latest: watch::Receiver<Arc<ServerConfig>>,
    /// Concurrent handshakes. One more aborts the oldest: honest clients finish within a moment, and others cannot keep
    /// them out.
    pub handshakes: usize,
    /// The trusted client CAs, if clients are asked for a certificate.
    pub(crate) trust: Option<Trust>,
}

/// A listener with its handshakes.
pub(super) struct Listener {
    acceptor: Acceptor,
    tls: Option<Tls>,
    handshakes: JoinSet<Option<Conn>>,
    /// Handshakes in progress, the oldest first.
    under_way: VecDeque<AbortHandle>,
}

impl Listener {
    pub(super) fn new(acceptor: Acceptor, tls: Option<Tls>) -> Listener {
        Listener { acceptor, tls, handshakes: JoinSet::new(), under_way: VecDeque::new() }
    }

    /// The next connection.
    pub(super) async fn next(&mut self) -> Conn {
        loop {
            let (stream, seat) = tokio::select! {
                accepted = self.acceptor.next() => accepted,
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Some(conn)) => return conn,
                    // It failed, or it was aborted.
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

    /// Closes the socket, and returns the connections that were already established. With TLS they have not sent a call
    /// yet: they and the handshakes in progress are dropped, and their clients reconnect elsewhere.
    pub(super) fn finish(self) -> Vec<Conn> {
        let last = self.acceptor.finish();
        if self.tls.is_some() {
            return Vec::new();
        }
        last.into_iter().map(|(stream, seat)| plain(stream, seat)).collect()
    }

    fn begin(&mut self, handshake: impl Future<Output = Option<Conn>> + Send + 'static, most: usize) {
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

fn plain(stream: TcpStream, seat: ConnectionPermit) -> Conn {
    Conn { line: LimitedIo::new(Wire::Plain(stream), seat), peer_identity: None, standing: None }
}

async fn shake(stream: TcpStream, tls: Tls, seat: ConnectionPermit) -> Option<Conn> {
    let asked = tls.trust.as_ref().map(Trust::number);
    let config = tls.latest.borrow().clone();
    let peer = stream.peer_addr().ok();
    let shaken = match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) if tls::speaks(stream.get_ref().1) => Ok(stream),
        Ok(Ok(_)) => Err(Error::other("the client does not offer HTTP/2 (ALPN h2)")),
        Ok(Err(error)) => Err(error),
        Err(late) => Err(late.into()),
    };
    match shaken {
        Ok(stream) => {
            let (peer_identity, chain) =
                (tls::peer_identity(stream.get_ref().1), tls::chain(stream.get_ref().1));
            let standing = tls.trust.zip(asked).zip(chain);
            let standing = standing.map(|((trust, asked), chain)| trust.standing(asked, chain));
            Some(Conn { line: LimitedIo::new(Wire::Tls(Box::new(stream)), seat), peer_identity, standing })
        }
        Err(error) => {
            tracing::debug!(%error, peer = peer.map(tracing::field::display), "a TLS handshake failed");
            None
        }
    }
}

/// A connection, with the identity in its client certificate.
pub(super) struct Conn {
    pub(super) line: LimitedIo<Wire>,
    pub(super) peer_identity: Option<Arc<PeerIdentity>>,
    /// Whether the client certificate is still trusted.
    pub(super) standing: Option<Standing>,
}

/// The transport, plain or TLS.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Applies the same expression to either transport.
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
