//! Serves HTTP/2 to probes: few connections with few calls each, and whoever does not call makes room. Must never know
//! what is asked.

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
use crate::activity::{Activity, Over, Timeouts};
use crate::in_hand::InHand;
use crate::line::Line;
use crate::seats::Seat;

/// How long clients may take. A watch of somebody's health has no end.
pub const TIMEOUTS: Timeouts =
    Timeouts { first: Duration::from_secs(10), idle: Duration::from_secs(65), request: None };
/// Calls at a time on one connection.
const STREAMS: u32 = 16;
/// Bytes of a call's headers. The library takes four times as many, so that the service can say that there are more.
pub const HEADERS: usize = 4 << 10;
const REFUSABLE: u32 = 16 << 10;
/// Bytes that a client may send before they are read: of one call, and of all on its connection. A probe's request has
/// a hundred.
const WINDOW: u32 = 64 << 10;
/// Bytes of one answer that wait to be sent.
const SEND: usize = 64 << 10;
/// Streams that we had to end for a client's mistakes, before its connection ends.
const MISTAKES: usize = 128;
/// Clients that answer no ping are gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client has for its goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves for ever, each connection with a service of its own.
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
    seat: Seat,
    service: S,
    timeouts: Timeouts,
) where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let activity = seat.activity().clone();
    let seats = seat.seats().clone();
    let service = InHand::new(service, activity.clone());
    let mut connection = pin!(http.serve_connection(TokioIo::new(Line::new(stream, seat)), service));
    let over = tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a probe's connection ended");
            }
            return;
        }
        over = activity.over(timeouts) => over,
    };
    seats.count(over);
    // Whoever needs the seat does not wait for a goodbye.
    if over == Over::Evicted {
        return;
    }
    connection.as_mut().graceful_shutdown();
    // Whoever is still there then is cut off.
    let _ = timeout(GOODBYE, connection).await;
}
