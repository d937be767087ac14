//! All rpcs by path. Must not depend on what an rpc does, nor on who may call it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use admission::MeasuredBody;
use bytes::Bytes;
use foldhash::fast::RandomState;
use futures_util::future::Either;
use tonic::service::Routes;
use tower::{BoxError, Service as _};

use super::origin::Origin;
use super::pass_through::{PassThrough, Passing};

/// All rpcs. Routed ones need no code, and bypass tonic's router.
#[derive(Clone)]
pub(super) struct Rpcs {
    passed: Arc<HashMap<String, PassThrough, RandomState>>,
    others: Routes,
}

/// A call until its response begins.
pub(super) type Answering<B> =
    Either<Passing, Pin<Box<<Routes as tower::Service<http::Request<MeasuredBody<B>>>>::Future>>>;

impl Rpcs {
    /// The routed rpcs, and the services behind tonic's router.
    pub(super) fn new(passed: impl Iterator<Item = (String, PassThrough)>, others: Routes) -> Rpcs {
        Rpcs { passed: Arc::new(passed.collect()), others }
    }

    /// Whether the clients of this path send streams to a route.
    pub(super) fn reads_streams(&self, path: &str) -> bool {
        self.passed.get(path).is_some_and(PassThrough::reads_streams)
    }

    /// The service of the routed rpc at this path.
    pub(super) fn passed(&self, path: &str) -> Option<&PassThrough> {
        self.passed.get(path)
    }

    /// These replace others: streams of rpcs that are gone end.
    pub(super) fn replace(&self, others: &Rpcs) {
        let gone = others.passed.iter().filter(|(path, _)| !self.passed.contains_key(*path));
        gone.for_each(|(_, pass)| pass.remove());
    }

    /// Answers a call.
    pub(super) fn call<B>(&self, origin: Origin, mut request: http::Request<MeasuredBody<B>>) -> Answering<B>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
    {
        match self.passed.get(request.uri().path()) {
            Some(pass) => Either::Left(pass.call(origin, request)),
            None => {
                request.extensions_mut().insert(origin);
                // It is always ready.
                Either::Right(Box::pin(self.others.clone().call(request)))
            }
        }
    }
}
