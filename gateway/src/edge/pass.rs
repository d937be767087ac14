//! Pass-through: one tower service for any route, on the raw bytes of its messages. Must never know which message
//! it passes.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use admission::{Measured, answer};
use bytes::Bytes;
use contract::{Delivered, Failure, Route};
use http::Response;
use tonic::Status;
use tonic::body::Body;
use tower::{BoxError, Service};

use super::finish::{Begun, Finish};
use super::{accept, unary};
use crate::bridge::Bridge;

/// Serves one route.
#[derive(Clone)]
pub(super) struct Pass(Arc<Way>);

struct Way {
    bridge: Bridge,
    route: &'static Route,
    sizes: Sizes,
}

/// The largest messages, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of a request.
    pub request: usize,
    /// Of a reply.
    pub reply: usize,
}

impl Pass {
    pub(super) fn new(bridge: Bridge, route: &'static Route, sizes: Sizes) -> Pass {
        Pass(Arc::new(Way { bridge, route, sizes }))
    }
}

impl<B> Service<http::Request<Measured<B>>> for Pass
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Finish<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Measured<B>>) -> Self::Future {
        let way = self.0.clone();
        Finish::new(|begun| async move {
            // The message stays charged as long as the work goes on, also without its caller.
            let _charged = request.body().intake().clone();
            Ok(way.go(request, &begun).await.unwrap_or_else(Status::into_http))
        })
    }
}

impl Way {
    async fn go<B>(&self, request: http::Request<B>, begun: &Begun) -> Result<Response<Body>, Status>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let Way { bridge, route, sizes } = self;
        let (head, body) = request.into_parts();
        let message = unary::read(body, sizes.request).await?;
        begun.set();
        let call = accept::call(&head.headers, &head.extensions, route.budget());
        let failed = |failure| answer(failure, (route.repeats)(&message));
        let reply = bridge.pass(route, &message, &call).await.map_err(failed)?;
        if reply.len() > sizes.reply {
            let failure = Failure::too_large("the reply", reply.len(), sizes.reply);
            return Err(failed(failure.delivered(Delivered::Yes)));
        }
        unary::answer(&reply)
    }
}
