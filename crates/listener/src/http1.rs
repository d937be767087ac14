//! Serves HTTP/1 with a connection limit, an idle timeout and a request timeout. Must not depend on the requests.

use std::convert::Infallible;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tower::{BoxError, Service};

use crate::accept::Acceptor;
use crate::activity::{Activity, Timeouts};
use crate::in_flight::InFlight;
use crate::limit::ConnectionPermit;

/// The clients' time limits. A probe on a kept connection asks every 10 s, Prometheus every 15 to 60 s.
pub const TIMEOUTS: Timeouts = Timeouts {
    first: Duration::from_secs(5),
    idle: Duration::from_secs(65),
    request: Some(Duration::from_secs(10)),
};
/// Maximum bytes of a request's head, and of a response waiting to be sent.
const BUFFER: usize = 16 << 10;

/// Serves forever.
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use listener::{Acceptor, ConnectionLimit, WhenFull, http1};
///
/// # async fn example() -> std::io::Result<()> {
/// let socket = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let limit = ConnectionLimit::new("http", 100, "fixed", WhenFull::Evict);
/// let page = Router::new().route("/livez", get(|| async { "ok" }));
/// http1::serve(Acceptor::new(socket, limit), page, http1::TIMEOUTS).await;
/// # Ok(())
/// # }
/// ```
pub async fn serve<S, B>(acceptor: Acceptor, service: S, timeouts: Timeouts)
where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut http = Builder::new();
    http.timer(TokioTimer::new()).max_buf_size(BUFFER).header_read_timeout(None);
    let mut connections = JoinSet::new();
    loop {
        let (stream, seat) = acceptor.next().await;
        connections.spawn(converse(http.clone(), stream, seat, service.clone(), timeouts));
        while connections.try_join_next().is_some() {}
    }
}

async fn converse<S, B>(
    http: Builder,
    stream: TcpStream,
    seat: ConnectionPermit,
    service: S,
    timeouts: Timeouts,
) where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let activity = seat.activity().clone();
    let service = InFlight::new(TowerToHyperService::new(service), activity.clone());
    let stream = TokioIo::new(Watched { stream, activity });
    tokio::select! {
        ended = http.serve_connection(stream, service) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP connection failed");
            }
        }
        over = seat.activity().over(timeouts) => {
            tracing::debug!(?over, "an HTTP connection was closed");
            seat.limit().count(over);
        }
    }
}

/// A stream that reports to its connection's activity.
struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.bytes();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.activity.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
