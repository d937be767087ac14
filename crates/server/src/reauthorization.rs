//! Reauthorization of streams: a response body that holds its caller's permit to the end, and that is rechecked at
//! intervals if it is a stream. A stream ends when its credential has expired, was revoked, or lacks the scope, and
//! when its connection has to close. Must not parse messages.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use wire::Failure;

use super::peer::Peer;
use super::status;
use bridge::share::Share;

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

impl Reauthorization {
    /// The response of a call that holds a permit; streams have `ends`.
    pub(super) fn over(body: Body, held: Option<Arc<Share>>, ends: Option<End>) -> Reauthorization {
        Reauthorization { body, _held: held, ends, over: false }
    }
}

/// Resolves when a stream has to end: its caller is no longer authorized (`refused`), or its connection has to close. `moves`: the
/// stream does not end by itself when its connection reaches its maximum age.
pub(super) fn end(refused: Option<End>, peer: Arc<Peer>, moves: bool) -> End {
    Box::pin(async move {
        let refused = async {
            match refused {
                Some(refused) => refused.await,
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
