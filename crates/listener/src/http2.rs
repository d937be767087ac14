//! Serves HTTP/2 to probes: few connections with few calls each; connections without calls are evicted. Must not depend
//! on the requests.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::BoxError;

use crate::accept::Acceptor;
use crate::activity::{Activity, CloseReason, Timeouts};
use crate::in_flight::InFlight;
use crate::io::LimitedIo;
use crate::limit::ConnectionPermit;

/// The clients' time limits. A health watch has no end.
pub const TIMEOUTS: Timeouts =
    Timeouts { first: Duration::from_secs(10), idle: Duration::from_secs(65), request: None };
/// Maximum concurrent calls on one connection.
const STREAMS: u32 = 16;
/// Maximum bytes of a call's headers. The library accepts four times as many, so that the service can refuse them.
pub const HEADERS: usize = 4 << 10;
const REFUSABLE: u32 = 16 << 10;
/// Flow-control windows: bytes that a client may send before they are read, for one call and for a connection. A
/// probe's request has a hundred.
const WINDOW: u32 = 64 << 10;
/// Maximum bytes of one response waiting to be sent.
const SEND: usize = 64 << 10;
/// Maximum streams reset for a client's protocol errors before its connection is closed.
const MISTAKES: usize = 128;
/// Keepalive: a client that does not answer a ping is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The time that a client has to close after GOAWAY.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves forever, each connection with its own service.
pub async fn serve<S, B>(acceptor: Acceptor, service: impl Fn(&Activity) -> S, timeouts: Timeouts)
where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut http = Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_local_error_reset_streams(MISTAKES)
        .max_header_list_size(REFUSABLE)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let mut connections = JoinSet::new();
    loop {
        let (stream, seat) = acceptor.next().await;
        let service = service(seat.activity());
        connections.spawn(converse(http.clone(), stream, seat, service, timeouts));
        while connections.try_join_next().is_some() {}
    }
}

async fn converse<S, B>(
    http: Builder<TokioExecutor>,
    stream: TcpStream,
    seat: ConnectionPermit,
    service: S,
    timeouts: Timeouts,
) where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let activity = seat.activity().clone();
    let seats = seat.limit().clone();
    let service = InFlight::new(service, activity.clone());
    let mut connection = pin!(http.serve_connection(TokioIo::new(LimitedIo::new(stream, seat)), service));
    let over = tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a probe's connection failed");
            }
            return;
        }
        over = activity.over(timeouts) => over,
    };
    seats.count(over);
    // A new connection does not wait for a graceful close.
    if over == CloseReason::Evicted {
        return;
    }
    connection.as_mut().graceful_shutdown();
    // A connection that is still open then is dropped.
    let _ = timeout(GOODBYE, connection).await;
}
