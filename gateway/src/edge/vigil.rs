//! The answer of a known caller: its call is in the caller's hand to its end, and one that goes on is looked at again
//! now and then. It ends when its credential has ended, was taken back, or is good for less. Must never look into a
//! message.

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
use super::status;
use crate::auth::{Badge, Caller};
use crate::share::Hold;

/// Between two looks.
const AGAIN: Duration = Duration::from_secs(5);

/// An answer's body.
pub(super) struct Vigil {
    body: Body,
    _held: Arc<Hold>,
    /// Ends with why the answer has to.
    ends: Option<Pin<Box<dyn Future<Output = Failure> + Send>>>,
    over: bool,
}

/// What a call that goes on was let in with.
pub(super) struct Ticket {
    pub(super) guard: Arc<Guard>,
    pub(super) rule: &'static Rule,
    pub(super) caller: Arc<Caller>,
    /// The credentials alone.
    pub(super) headers: HeaderMap,
    pub(super) badge: Option<Arc<Badge>>,
}

impl Vigil {
    /// An answer of a call in hand; with a ticket, one that goes on.
    pub(super) fn over(body: Body, held: Arc<Hold>, ticket: Option<Ticket>) -> Vigil {
        let ends = ticket.map(|ticket| Box::pin(ticket.end()) as Pin<Box<_>>);
        Vigil { body, _held: held, ends, over: false }
    }
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
