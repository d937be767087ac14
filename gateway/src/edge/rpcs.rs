//! Every rpc by its path. Must never know what one does, nor who may call it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use admission::Measured;
use bytes::Bytes;
use foldhash::fast::RandomState;
use futures_util::future::Either;
use tonic::service::Routes;
use tower::{BoxError, Service as _};

use super::origin::Origin;
use super::pass::{Pass, Passing};

/// All of them: a routed one needs no code, and goes past the router.
#[derive(Clone)]
pub(super) struct Rpcs {
    passed: Arc<HashMap<&'static str, Pass, RandomState>>,
    others: Routes,
}

/// A call until its answer begins.
pub(super) type Answering<B> =
    Either<Passing, Pin<Box<<Routes as tower::Service<http::Request<Measured<B>>>>::Future>>>;

impl Rpcs {
    /// These, and the services behind the router.
    pub(super) fn new(passed: impl Iterator<Item = (&'static str, Pass)>, others: Routes) -> Rpcs {
        Rpcs { passed: Arc::new(passed.collect()), others }
    }

    /// Answers a call.
    pub(super) fn call<B>(&self, origin: Origin, mut request: http::Request<Measured<B>>) -> Answering<B>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
    {
        match self.passed.get(request.uri().path()) {
            Some(pass) => Either::Left(pass.call(origin, request)),
            None => {
                request.extensions_mut().insert(origin);
                // It always is ready.
                Either::Right(Box::pin(self.others.clone().call(request)))
            }
        }
    }
}
