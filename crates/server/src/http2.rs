//! One HTTP/2 connection from its first frame to its last: its limits, and its graceful shutdown (GOAWAY). Must not
//! depend on what is called.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use admission::budget::ConnectionBudget;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use listener::{Activity, CloseReason, LimitedIo};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use super::listener::Wire;
use super::peer::Peer;

/// Connections whose clients do not answer a ping are closed.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum frame size, in bytes: the size that every client has to accept.
const FRAME: u32 = 16 << 10;
/// Flow-control windows, in bytes: of one call, and of the connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Send buffer of one response, in bytes.
const SEND: usize = 256 << 10;
/// Streams reset because of a client's protocol errors before its connection is closed.
const MISTAKES: usize = 1_024;

/// Interval between two checks of a connection. It is closed if none of a response is read during seven of them.
const LOOK: Duration = Duration::from_secs(5);
/// Time for a client without a call in flight to close the connection after GOAWAY.
const GOODBYE: Duration = Duration::from_secs(2);

/// HTTP/2 parameters of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Http2Params {
    /// Concurrent calls.
    pub(super) streams: u32,
    /// Maximum size of a call's headers, in bytes.
    pub(super) headers: u32,
    /// Maximum age, ±10 %, so that connections that were opened together are not reopened together.
    pub(super) age: Option<Duration>,
    /// How long streams may continue after that.
    pub(super) grace: Duration,
    /// How long it may be idle.
    pub(super) idle: Option<Duration>,
}

impl Http2Params {
    /// An HTTP/2 server with these parameters.
    pub(super) fn http(&self) -> Builder<TokioExecutor> {
        let mut http = Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            // Callers that cancel early are not attackers: with the library's default of 20, their connection and all
            // calls on it would end whenever this thread is busy: https://github.com/hyperium/h2/pull/668
            .max_pending_accept_reset_streams(usize::try_from(self.streams).ok())
            .max_local_error_reset_streams(MISTAKES)
            .max_header_list_size(self.headers)
            .max_frame_size(FRAME)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .adaptive_window(false)
            // gRPC clients do not use the date header.
            .auto_date_header(false)
            .max_send_buf_size(SEND)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        http
    }

    async fn aged(&self) {
        match self.age {
            Some(age) => sleep(age.mul_f64(0.9 + nats::backoff::jitter(200) as f64 / 1_000.0)).await,
            None => std::future::pending().await,
        }
    }
}

/// Serves a connection until it ends. At its maximum age, or during a drain, it sends GOAWAY: calls that arrived before
/// are answered, and the client makes new calls on another connection.
pub(super) async fn converse<S, B>(
    line: LimitedIo<Wire>,
    peer: Arc<Peer>,
    calls: Arc<ConnectionBudget>,
    service: S,
    http: Builder<TokioExecutor>,
    params: Http2Params,
    drain: CancellationToken,
) where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (activity, seats) = (line.permit().activity().clone(), line.permit().limit().clone());
    let mut connection = pin!(http.serve_connection(TokioIo::new(line), service));
    let why = tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = params.aged() => Why::Aged,
        () = peer.ended() => Why::Ended,
        over = watch(&calls, &activity, params.idle) => Why::Over(over),
        () = drain.cancelled() => Why::Drain,
    };
    if let Why::Over(over) = why {
        seats.count(over);
    }
    connection.as_mut().graceful_shutdown();
    let rest = async {
        match why {
            Why::Aged => tokio::select! {
                () = peer.part() => {}
                () = async { peer.ended().await; peer.hang_up().await } => {}
            },
            Why::Ended | Why::Over(CloseReason::Slow) => peer.hang_up().await,
            Why::Over(CloseReason::Idle | CloseReason::Evicted) => {
                sleep(GOODBYE).await;
                // A call was sent before the client received GOAWAY.
                if !calls.idle() {
                    peer.part().await;
                }
            }
            Why::Drain => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = connection => note(ended),
        () = rest => tracing::debug!("a connection was closed before its calls ended"),
    }
}

/// Waits until a connection has been idle for too long, is evicted, or does not read a response for too long.
async fn watch(calls: &ConnectionBudget, activity: &Activity, idle: Option<Duration>) -> CloseReason {
    let look = idle.map_or(LOOK, |idle| LOOK.min(idle / 2));
    let mut turned = Instant::now();
    loop {
        tokio::select! {
            () = sleep(look) => {}
            () = activity.evicted() => return CloseReason::Evicted,
        }
        let quiet = activity.seen(!calls.idle());
        if idle.is_some_and(|idle| quiet >= idle) {
            return CloseReason::Idle;
        }
        if turned.elapsed() >= LOOK {
            turned = Instant::now();
            if calls.turn() {
                return CloseReason::Slow;
            }
        }
    }
}

/// Why a connection ends.
enum Why {
    /// It has reached its maximum age.
    Aged,
    /// Its client is no longer trusted.
    Ended,
    /// It was idle for too long, it was evicted, or its client does not read a response.
    Over(CloseReason),
    /// The gateway drains.
    Drain,
}

fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
