//! Pass-through: one service for any route, on the raw bytes of its messages. Must not depend on the type of a message.

use std::convert::Infallible;
use std::sync::Arc;

use admission::{MeasuredBody, answer};
use bytes::Bytes;
use catalog::{Kind, Route};
use http::Response;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::BoxError;
use wire::{Delivered, Failure, Reason};

use super::finish::{Begun, Finish};
use super::origin::Origin;
use super::peer::Peer;
use super::{framing, metadata};
use bridge::Bridge;

/// The pass-through service of one route.
#[derive(Clone)]
pub(super) struct PassThrough(Arc<Target>);

struct Target {
    bridge: Bridge,
    route: Arc<Route>,
    sizes: Sizes,
    /// Ends streams.
    drain: CancellationToken,
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
    pub(super) fn new(
        bridge: Bridge,
        route: Arc<Route>,
        sizes: Sizes,
        drain: CancellationToken,
    ) -> PassThrough {
        PassThrough(Arc::new(Target { bridge, route, sizes, drain }))
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
        let message = match framing::read(body, self.sizes.request).await {
            Ok(message) => message,
            Err(status) => return Ok(status.into_http()),
        };
        let call = metadata::call(&head.headers, &head.extensions, &origin, self.route.budget());
        if self.route.kind.streams_replies() {
            // A caller that leaves ends it.
            let opened = self.bridge.open(&self.route, &message, call).await;
            let ends = self.ends(origin.peer);
            let stream = opened.map(|messages| framing::stream::answer(messages, self.sizes.reply, ends));
            return Ok(stream.unwrap_or_else(|failure| answer(failure, false).into_http()));
        }
        begun.set();
        let reply = self.bridge.pass(&self.route, &message, &call).await;
        let told = reply.and_then(|reply| self.fits(reply)).and_then(|reply| framing::answer(&reply));
        let failed = |failure| answer(failure, self.route.codec.repeatable(&message)).into_http();
        Ok(told.unwrap_or_else(failed))
    }

    /// Resolves when a stream has to end. One that does not end by itself moves with its connection.
    fn ends(&self, peer: Arc<Peer>) -> impl Future<Output = Failure> + Send + use<> {
        let (drain, moves) = (self.drain.clone(), matches!(self.route.kind, Kind::Subscribe(_)));
        async move {
            tokio::select! {
                biased;
                () = drain.cancelled() => {
                    Failure::new(Reason::Draining, "the gateway is shutting down")
                        .delivered(Delivered::Yes)
                        .retry_after(nats::failure::RETRY)
                }
                () = peer.leaving(), if moves => peer.moved(),
            }
        }
    }

    fn fits(&self, reply: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let most = self.sizes.reply;
        if reply.len() <= most {
            return Ok(reply);
        }
        Err(Failure::too_large("the reply", reply.len(), most).delivered(Delivered::Yes))
    }
}
