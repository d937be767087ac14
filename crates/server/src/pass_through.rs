//! Pass-through: one service for any route, on the raw bytes of its messages. Must not depend on the type of a message.

use std::convert::Infallible;
use std::sync::Arc;

use admission::{MeasuredBody, answer};
use bytes::Bytes;
use catalog::{Kind, Route};
use http::Response;
use http::request::Parts;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::BoxError;
use wire::{Delivered, Failure, Reason};

use super::client_stream::{self, RequestEnd};
use super::finish::{Begun, Finish};
use super::origin::Origin;
use super::peer::Peer;
use super::{framing, metadata};
use bridge::{Bridge, CallContext};

/// The pass-through service of one route.
#[derive(Clone)]
pub(super) struct PassThrough(Arc<Target>);

struct Target {
    bridge: Bridge,
    route: Arc<Route>,
    sizes: Sizes,
    /// Ends streams.
    drain: CancellationToken,
    /// Cancelled when the rpc is no longer served: ends streams too.
    removed: CancellationToken,
}

/// The largest messages, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of a request.
    pub request: usize,
    /// Of a reply.
    pub reply: usize,
}

impl PassThrough {
    /// `before`: the service that it replaces, whose streams then belong to it.
    pub(super) fn new(
        bridge: &Bridge,
        route: Arc<Route>,
        sizes: Sizes,
        drain: CancellationToken,
        before: Option<&PassThrough>,
    ) -> PassThrough {
        let removed = before.map(|before| before.0.removed.clone()).unwrap_or_default();
        let bridge = match route.kind.streams_replies() {
            true => bridge.only(&route),
            false => bridge.clone(),
        };
        PassThrough(Arc::new(Target { bridge, route, sizes, drain, removed }))
    }

    /// The rpc is no longer served: ends its streams. Other calls are answered.
    pub(super) fn remove(&self) {
        self.0.removed.cancel();
    }

    /// Whether its clients send streams.
    pub(super) fn reads_streams(&self) -> bool {
        self.0.route.kind.streams_requests()
    }

    /// Answers a call.
    pub(super) fn call<B>(&self, origin: Origin, request: http::Request<MeasuredBody<B>>) -> Passing
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
    {
        let way = self.0.clone();
        Finish::new(|begun| way.go(origin, request, begun))
    }
}

/// A routed call until its response begins.
pub(super) type Passing = Finish<Result<Response<Body>, Infallible>>;

impl Target {
    async fn go<B>(
        self: Arc<Self>,
        origin: Origin,
        request: http::Request<MeasuredBody<B>>,
        begun: Begun,
    ) -> Result<Response<Body>, Infallible>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let (head, body) = request.into_parts();
        // The message counts against the memory budget until the work ends, even if its caller cancels.
        let _charged = body.intake().clone();
        if self.route.kind.streams_requests() {
            // A caller that leaves ends it.
            let call = match self.call(&head, &origin) {
                Ok(call) => call,
                Err(failure) => return Ok(answer(failure, true).into_http()),
            };
            let ends = (head.extensions.get::<RequestEnd>(), &self.drain);
            let stored =
                client_stream::store(&self.bridge, &self.route, body, self.sizes.request, call, ends).await;
            let told = stored.and_then(|reply| framing::answer(&reply, None));
            return Ok(told.unwrap_or_else(|failure| answer(failure, self.is_known_by_id()).into_http()));
        }
        let message = match framing::read(body, self.sizes.request).await {
            Ok(message) => message,
            Err(status) => return Ok(status.into_http()),
        };
        let call = match self.call(&head, &origin) {
            Ok(call) => call,
            Err(failure) => return Ok(answer(failure, true).into_http()),
        };
        if self.route.kind.streams_replies() {
            // A caller that leaves ends it.
            let opened = self.bridge.open(&self.route, &message, call).await;
            let end = self.end(origin.peer);
            let stream = opened.map(|messages| framing::stream::answer(messages, self.sizes.reply, end));
            return Ok(stream.unwrap_or_else(|failure| answer(failure, false).into_http()));
        }
        if !self.route.cancel {
            begun.set();
        }
        let reply = self.bridge.pass(&self.route, &message, &call).await;
        let told = reply
            .and_then(|reply| self.fits(reply))
            .and_then(|reply| framing::answer(&reply.message, reply.metadata));
        let again = || self.is_known_by_id() || self.route.codec.repeatable(&message);
        let failed = |failure| answer(failure, again()).into_http();
        Ok(told.unwrap_or_else(failed))
    }

    /// The context of a call, with the metadata that the route passes on.
    fn call(&self, head: &Parts, origin: &Origin) -> Result<CallContext, Failure> {
        let budget = metadata::Budget::of(&self.route);
        let call = metadata::call(&head.headers, &head.extensions, origin, budget);
        if self.route.metadata.request.is_empty() {
            return Ok(call);
        }
        Ok(CallContext { metadata: metadata::listed(&head.headers, &self.route.metadata.request)?, ..call })
    }

    /// Whether a stream knows the caller's messages by ids, so that a call may be repeated.
    fn is_known_by_id(&self) -> bool {
        matches!(&self.route.kind, Kind::EmitDurable(durable) if durable.message_id.is_some())
    }

    /// Resolves when a stream has to end: it moves with its connection.
    fn end(&self, peer: Arc<Peer>) -> impl Future<Output = Failure> + Send + use<> {
        let (drain, removed) = (self.drain.clone(), self.removed.clone());
        let moves = self.route.kind.streams_replies();
        async move {
            tokio::select! {
                biased;
                () = drain.cancelled() => Failure::new(Reason::Draining, "the gateway is shutting down")
                    .delivered(Delivered::Yes)
                    .retry_after(nats::failure::RETRY),
                // Not UNAVAILABLE: a client that repeats the call would not find the rpc.
                () = removed.cancelled() => {
                    let failure = Failure::new(Reason::UnknownRpc, "the rpc was removed from the contract");
                    failure.delivered(Delivered::Yes)
                }
                () = peer.leaving(), if moves => peer.moved(),
            }
        }
    }

    fn fits(&self, reply: bridge::Response) -> Result<bridge::Response, Failure> {
        let (size, most) = (reply.message.len(), self.sizes.reply);
        if size <= most {
            return Ok(reply);
        }
        Err(Failure::too_large("the reply", size, most).delivered(Delivered::Yes))
    }
}
