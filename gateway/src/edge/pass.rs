//! Pass-through: one tower service for any route, on the raw bytes of its messages. Must never know which message
//! it passes.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use contract::{Delivered, Failure, Route};
use http::Response as HttpResponse;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tower::{BoxError, Service};

use super::{call_of, status};
use crate::bridge::Bridge;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

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

impl<B> Service<http::Request<B>> for Pass
where
    B: http_body::Body<Data: Send, Error: Into<BoxError> + Send> + Send + 'static,
{
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<HttpResponse<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let pass = self.clone();
        Box::pin(async move {
            let sizes = pass.0.sizes;
            let mut grpc =
                Grpc::new(Raw).apply_max_message_size_config(Some(sizes.request), Some(sizes.reply));
            Ok(grpc.unary(pass, request).await)
        })
    }
}

impl UnaryService<Bytes> for Pass {
    type Response = Bytes;
    type Future = Boxed<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let way = self.0.clone();
        Box::pin(async move {
            let Way { bridge, route, sizes } = &*way;
            let call = call_of(&request, route.budget());
            let reply = bridge.pass(route, request.get_ref(), &call).await.map_err(status)?;
            if reply.len() > sizes.reply {
                let failure = Failure::too_large("the reply", reply.len(), sizes.reply);
                return Err(status(failure.delivered(Delivered::Yes)));
            }
            Ok(Response::new(Bytes::from(reply)))
        })
    }
}

/// A codec that leaves messages as they are.
#[derive(Clone, Copy, Default)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
