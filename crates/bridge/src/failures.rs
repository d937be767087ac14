//! Failures of calls that the bridge finds itself, and how those of several attempts add up. Must not send anything.

use catalog::Route;
use wire::{Delivered, Failure, Reason};

use crate::route_state::RouteState;

/// A route whose requests or replies are a stream.
pub(crate) fn streams_only(route: &Route) -> Failure {
    let failure = Failure::new(Reason::Internal, "the gateway has to open this route");
    failure.because(format_args!("{} has a stream of messages", route.path))
}

/// A route of which the gateway itself has no request.
pub(crate) fn unaddressed(route: &Route) -> Failure {
    let failure = Failure::new(Reason::Internal, "the gateway does not call this route");
    failure.because(format_args!("the subject {} depends on the request", route.subject))
}

/// A reply that does not match its message type: the service violates the contract.
pub(crate) fn violated(route: &Route, state: &RouteState, mismatch: &dyn std::fmt::Display) -> Failure {
    let count = state.violation();
    Failure::new(
        Reason::ContractViolation,
        format!("the reply of the service for {} violates the contract", route.rpc),
    )
    .delivered(Delivered::Yes)
    .because(format_args!("{}: a reply violates the contract ({count} so far): {mismatch}", route.path))
}

/// A JetStream acknowledgement instead of a reply: a stream captures the subject. It is unknown whether the service
/// received the request as well.
pub(crate) fn captured(route: &Route, state: &RouteState) -> Failure {
    violated(route, state, &"JetStream acknowledged the request: a stream captures its subject")
        .delivered(Delivered::Unknown)
}

/// A stream captures the subject. The name of the stream is only logged, for the operator.
pub(crate) fn taken(route: &Route) -> Failure {
    let message =
        format!("a stream captures the subject {}, and would answer instead of the service", route.subject);
    Failure::new(Reason::SubjectCaptured, message).delivered(Delivered::No).retry_after(nats::failure::RETRY)
}

pub(crate) fn unfit(mismatch: &dyn std::fmt::Display) -> Failure {
    Failure::new(Reason::InvalidRequest, format!("the message cannot be read: {mismatch}"))
        .delivered(Delivered::No)
}

/// The failure of all attempts so far: if one of them may have been delivered, a later "not delivered" does not change
/// that.
pub(crate) fn sum(failure: Failure, so_far: &mut Delivered) -> Failure {
    match failure.certainty() {
        Delivered::No => failure.delivered(*so_far),
        Delivered::Yes => failure,
        Delivered::Unknown => {
            *so_far = Delivered::Unknown;
            failure
        }
    }
}
