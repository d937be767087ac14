//! Streams of messages that a call receives. Must not know where they come from.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use catalog::{Kind, Route};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use wire::{Failure, Reason};

use crate::Bridge;
use crate::call::CallContext;

/// The messages of a call, each in the protobuf encoding. An error is the last one. Dropping it ends what it reads.
pub struct Messages(BoxStream<'static, Result<Vec<u8>, Failure>>);

impl Messages {
    /// These messages.
    pub(crate) fn new(messages: impl Stream<Item = Result<Vec<u8>, Failure>> + Send + 'static) -> Messages {
        Messages(messages.boxed())
    }
}

impl Stream for Messages {
    type Item = Result<Vec<u8>, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl Bridge {
    /// Opens the stream of a route with a request in the protobuf encoding.
    ///
    /// # Errors
    /// Why there is no stream, as for [`Bridge::pass`]. What fails after that is its last message.
    pub async fn open(
        &self,
        route: &Arc<Route>,
        request: &[u8],
        call: CallContext,
    ) -> Result<Messages, Failure> {
        match &route.kind {
            Kind::RequestMany(replies) => self.ask_many(route, replies, request, call).await,
            Kind::Subscribe(subscription) => self.listen(route, subscription, request, call).await,
            Kind::Request | Kind::Emit { .. } | Kind::EmitDurable(_) => {
                Err(Failure::new(Reason::Internal, "the route has no stream of replies"))
            }
        }
    }
}
