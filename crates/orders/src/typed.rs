//! Calls of routes with the contract's types: what the order system asks the inventory. Must not decide anything.

use contract::route::Routed;
use wire::{Delivered, Failure, Reason};

use bridge::Bridge;
use bridge::call::CallContext;

/// Calls the route of a request, and returns its reply.
///
/// # Errors
/// The service's refusal, or why there is no valid reply; `delivered` tells whether the service may have the request.
pub(crate) async fn ask<R: Routed>(
    bridge: &Bridge,
    request: &R,
    call: &CallContext,
) -> Result<R::Reply, Failure> {
    let payload = || {
        request.to_payload().map_err(|mismatch| {
            Failure::new(Reason::InvalidRequest, format!("the message cannot be sent: {mismatch}"))
                .delivered(Delivered::No)
        })
    };
    bridge.ask(R::ROUTE.path, payload, request.repeatable(), call, R::reply_from_payload).await
}
