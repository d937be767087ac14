//! An answer: the call of a known caller is in the caller's hand to its end, and one that goes on is looked at again now
//! and then. It ends when its credential has ended, was taken back, or is good for less, and when its connection has to
//! be left. Must never look into a message.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use contract::Failure;
use contract::access::Rule;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::sleep;
use tonic::Status;
use tonic::body::Body;

use super::guard::Guard;
use super::peer::Peer;
use super::status;
use crate::auth::Caller;
use crate::share::Hold;

/// Between two looks.
const AGAIN: Duration = Duration::from_secs(5);

/// An answer's body.
pub(super) struct Vigil {
    body: Body,
    _held: Option<Arc<Hold>>,
    /// Ends with why the answer has to.
    ends: Option<End>,
    over: bool,
}

/// Ends with why a stream has to.
pub(super) type End = Pin<Box<dyn Future<Output = Failure> + Send>>;

/// What a call that goes on was let in with.
pub(super) struct Ticket {
    pub(super) guard: Arc<Guard>,
    pub(super) rule: Option<&'static Rule>,
    pub(super) caller: Arc<Caller>,
    /// The credentials alone.
    pub(super) headers: HeaderMap,
    pub(super) peer: Arc<Peer>,
}

impl Vigil {
    /// An answer of a call in hand; one that goes on has an end.
    pub(super) fn over(body: Body, held: Option<Arc<Hold>>, ends: Option<End>) -> Vigil {
        Vigil { body, _held: held, ends, over: false }
    }
}

/// When a stream ends, whatever it says: when its caller may not go on, and when its connection has to be left. `moves`
/// says that it does not end by itself then.
pub(super) fn end(ticket: Option<Ticket>, peer: Arc<Peer>, moves: bool) -> End {
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

impl Ticket {
    async fn end(self) -> Failure {
        loop {
            sleep(AGAIN).await;
            if let Err(failure) = self.guard.again(&self).await {
                return failure;
            }
        }
    }
}

impl http_body::Body for Vigil {
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
