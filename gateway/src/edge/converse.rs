//! One connection's HTTP/2, from its first frame to its last: with which limits, and how it says goodbye. Must never
//! know what is called.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use admission::budget::Connection;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use listener::{Activity, Line, Over};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use super::incoming::Wire;
use super::peer::Peer;

/// Clients that answer no ping are gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a frame: what every client has to accept, and enough.
const FRAME: u32 = 16 << 10;
/// Bytes that a client may send before they are read: of one call, and of all on its connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of one answer that wait to be sent.
const SEND: usize = 256 << 10;
/// Streams that we had to end for a client's mistakes, before its connection ends.
const MISTAKES: usize = 1_024;

/// Between two looks at a connection. Of an answer something has to be taken in seven of them, or its connection ends.
const LOOK: Duration = Duration::from_secs(5);
/// What a client without a call has to hang up.
const GOODBYE: Duration = Duration::from_secs(2);

/// Limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    /// Calls at a time.
    pub(super) streams: u32,
    /// Bytes of a call's headers.
    pub(super) headers: u32,
    /// How long it lasts; a tenth more or less, so that those that came together do not come together again.
    pub(super) age: Option<Duration>,
    /// How long streams may go on after that.
    pub(super) grace: Duration,
    /// How long it may have no call.
    pub(super) idle: Option<Duration>,
}

impl Manners {
    /// What speaks HTTP/2 like this.
    pub(super) fn http(&self) -> Builder<TokioExecutor> {
        let mut http = Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            // Callers that give up early are no attackers: the library's 20 would close their connection, with all that
            // is in flight on it, whenever this thread is busy.
            .max_pending_accept_reset_streams(usize::try_from(self.streams).ok())
            .max_local_error_reset_streams(MISTAKES)
            .max_header_list_size(self.headers)
            .max_frame_size(FRAME)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .adaptive_window(false)
            // Nobody asks a gRPC server for the date.
            .auto_date_header(false)
            .max_send_buf_size(SEND)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        http
    }

    async fn aged(&self) {
        match self.age {
            Some(age) => sleep(age.mul_f64(0.9 + link::inbox::jitter(200) as f64 / 1_000.0)).await,
            None => std::future::pending().await,
        }
    }
}

/// Serves a connection until it ends. When its time is over, or all have to go, it says goodbye: calls that came before
/// are answered, and its client makes others on another connection.
pub(super) async fn converse<S, B>(
    line: Line<Wire>,
    peer: Arc<Peer>,
    calls: Arc<Connection>,
    service: S,
    http: Builder<TokioExecutor>,
    manners: Manners,
    drain: CancellationToken,
) where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (activity, seats) = (line.seat().activity().clone(), line.seat().seats().clone());
    let mut connection = pin!(http.serve_connection(TokioIo::new(line), service));
    let why = tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = manners.aged() => Why::Aged,
        () = peer.ended() => Why::Ended,
        over = watch(&calls, &activity, manners.idle) => Why::Over(over),
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
            Why::Ended | Why::Over(Over::Slow) => peer.hang_up().await,
            Why::Over(Over::Idle | Over::Evicted) => {
                sleep(GOODBYE).await;
                // A call has crossed our goodbye.
                if !calls.idle() {
                    peer.part().await;
                }
            }
            Why::Drain => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = connection => note(ended),
        () = rest => tracing::debug!("a connection was cut off"),
    }
}

/// Waits until a connection has been idle for too long, has to make room, or nothing of some answer has been taken for
/// long.
async fn watch(calls: &Connection, activity: &Activity, idle: Option<Duration>) -> Over {
    let look = idle.map_or(LOOK, |idle| LOOK.min(idle / 2));
    let mut turned = Instant::now();
    loop {
        tokio::select! {
            () = sleep(look) => {}
            () = activity.evicted() => return Over::Evicted,
        }
        let quiet = activity.seen(!calls.idle());
        if idle.is_some_and(|idle| quiet >= idle) {
            return Over::Idle;
        }
        if turned.elapsed() >= LOOK {
            turned = Instant::now();
            if calls.turn() {
                return Over::Slow;
            }
        }
    }
}

/// Why a connection ends.
enum Why {
    /// It has come of age.
    Aged,
    /// Its client is believed no longer.
    Ended,
    /// It was idle for too long or too many wait, or its client does not take an answer.
    Over(Over),
    /// All have to go.
    Drain,
}

fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
