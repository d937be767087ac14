//! Streams of messages that a call receives. Must not know where they come from.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use catalog::{Kind, Route};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use wire::{Failure, Metadata, Reason};

use crate::Bridge;
use crate::call::CallContext;
use crate::response::Trailers;

/// The messages of a call, each in the protobuf encoding. An error is the last one. Dropping it ends what it reads.
pub struct Messages {
    messages: BoxStream<'static, Result<Bytes, Failure>>,
    headers: Metadata,
    /// Where the trailers are when it has ended, if the route passes any on.
    trailers: Option<Trailers>,
}

impl Messages {
    /// These messages.
    pub(crate) fn new<T: Into<Bytes>>(
        messages: impl Stream<Item = Result<T, Failure>> + Send + 'static,
    ) -> Messages {
        let messages = messages.map(|message| message.map(Into::into)).boxed();
        Messages { messages, headers: Vec::new(), trailers: None }
    }

    /// The same, with an entry of the initial metadata.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Messages {
        self.headers.push((name.into(), value.into().into()));
        self
    }

    /// The same, with the metadata of a reply in the initial metadata, and trailers that come when it ends.
    #[must_use]
    pub(crate) fn passing(self, initial: Metadata, trailers: Option<Trailers>) -> Messages {
        Messages { headers: initial, trailers, ..self }
    }

    /// The trailers of a stream that has ended without an error.
    pub fn trailers(&self) -> Option<&Metadata> {
        self.trailers.as_ref()?.get()
    }

    /// The initial metadata: names in lower case, values in printable ASCII.
    pub fn headers(&self) -> &Metadata {
        &self.headers
    }
}

impl Stream for Messages {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_next_unpin(context)
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
