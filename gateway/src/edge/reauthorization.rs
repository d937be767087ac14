//! Reauthorization of streams: a response body that holds its caller's permit to the end, and that is rechecked at
//! intervals if it is a stream. A stream ends when its credential has expired, was revoked, or lacks the scope, and
//! when its connection has to close. Must not parse messages.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use contract::access::Rule;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::sleep;
use tonic::Status;
use tonic::body::Body;
use wire::Failure;

use super::authorization::Authorization;
use super::peer::Peer;
use super::status;
use crate::auth::Caller;
use crate::share::Share;

/// Interval between two rechecks.
const AGAIN: Duration = Duration::from_secs(5);

/// A response body.
pub(super) struct Reauthorization {
    body: Body,
    _held: Option<Arc<Share>>,
    /// Resolves to the reason when the stream has to end.
    ends: Option<End>,
    over: bool,
}

/// Resolves to the reason when a stream has to end.
pub(super) type End = Pin<Box<dyn Future<Output = Failure> + Send>>;

/// What a stream was authorized with.
pub(super) struct CallAuthority {
    pub(super) guard: Arc<Authorization>,
    pub(super) rule: Option<&'static Rule>,
    pub(super) caller: Arc<Caller>,
    /// The headers with credentials only.
    pub(super) headers: HeaderMap,
    pub(super) peer: Arc<Peer>,
}

impl Reauthorization {
    /// The response of a call that holds a permit; streams have `ends`.
    pub(super) fn over(body: Body, held: Option<Arc<Share>>, ends: Option<End>) -> Reauthorization {
        Reauthorization { body, _held: held, ends, over: false }
    }
}

/// Resolves when a stream has to end: its caller is no longer authorized, or its connection has to close. `moves`: the
/// stream does not end by itself when its connection reaches its maximum age.
pub(super) fn end(ticket: Option<CallAuthority>, peer: Arc<Peer>, moves: bool) -> End {
    Box::pin(async move {
        let refused = async {
            match ticket {
                Some(ticket) => ticket.end().await,
                None => std::future::pending().await,
            }
        };
        let left = async {
            let moved = async {
                if !moves {
                    std::future::pending::<()>().await;
                }
                peer.leaving().await;
                peer.moved()
            };
            tokio::select! {
                failure = peer.unwelcome() => failure,
                failure = moved => failure,
            }
        };
        tokio::select! {
            failure = refused => failure,
            failure = left => failure,
        }
    })
}

impl CallAuthority {
    async fn end(self) -> Failure {
        loop {
            sleep(AGAIN).await;
            if let Err(failure) = self.guard.again(&self).await {
                return failure;
            }
        }
    }
}

impl http_body::Body for Reauthorization {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(ends) = &mut self.ends
            && let Poll::Ready(failure) = ends.as_mut().poll(context)
        {
            self.over = true;
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(
                status(failure).add_header(&mut trailers).map(|()| Frame::trailers(trailers)),
            ));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ends.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}
