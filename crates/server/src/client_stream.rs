//! Calls whose clients stream messages to a route: read one by one, as fast as they are stored. Must not depend on the type
//! of a message.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use admission::MeasuredBody;
use bridge::{Bridge, CallContext};
use bytes::Bytes;
use catalog::Route;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tower::BoxError;
use wire::{Delivered, Failure, Reason};

use super::framing::requests::Requests;
use super::reauthorization::End;

/// The part of a call's time that is kept for finding out what is stored, and its most.
const REST: u32 = 10;
const REST_MOST: Duration = Duration::from_millis(500);

/// Resolves when a request that streams has to end: its caller is no longer authorized, or its connection has to close.
#[derive(Clone)]
pub(super) struct RequestEnd(Arc<Mutex<Option<End>>>);

impl RequestEnd {
    pub(super) fn new(end: End) -> RequestEnd {
        RequestEnd(Arc::new(Mutex::new(Some(end))))
    }

    fn take(&self) -> Option<End> {
        self.0.lock().take()
    }
}

/// Has the messages of a request stored, each of at most `most` bytes, and returns the reply.
///
/// # Errors
///
/// Why not all are stored; the metadata says how many are.
pub(super) async fn store<B>(
    bridge: &Bridge,
    route: &Arc<Route>,
    body: MeasuredBody<B>,
    most: usize,
    call: CallContext,
    ends: (Option<&RequestEnd>, &CancellationToken),
) -> Result<Vec<u8>, Failure>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut ended = pin!(ended(call.clone(), ends.0.and_then(RequestEnd::take), ends.1));
    let mut upload = bridge.upload(route, call)?;
    let mut requests = Requests::new(body, most);
    let end = loop {
        let next = tokio::select! {
            biased;
            failure = &mut ended => Err(failure),
            failure = upload.failed() => Err(failure),
            next = requests.next() => next,
        };
        let (message, held) = match next {
            Ok(Some(next)) => next,
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        };
        let put = tokio::select! {
            biased;
            failure = &mut ended => Err(failure),
            put = upload.put(&message, held) => put,
        };
        if let Err(failure) = put {
            break Err(failure);
        }
    };
    match end {
        Ok(()) => upload.finish().await,
        Err(failure) => Err(upload.abort(failure).await),
    }
}

/// Resolves when no more messages are read.
async fn ended(call: CallContext, refused: Option<End>, drain: &CancellationToken) -> Failure {
    let left = call.deadline.saturating_duration_since(Instant::now());
    let refused = async {
        match refused {
            Some(refused) => refused.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = sleep_until(call.deadline - (left / REST).min(REST_MOST)) => call.late(Delivered::No),
        failure = refused => failure,
        () = drain.cancelled() => {
            let failure = Failure::new(Reason::Draining, "the gateway is shutting down");
            failure.delivered(Delivered::No).retry_after(nats::failure::RETRY)
        }
    }
}
