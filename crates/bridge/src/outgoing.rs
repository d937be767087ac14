//! What a call sends: where, what, and what it tells the service about itself. Must not send it.

use async_nats::Subject;
use bytes::Bytes;
use catalog::{Route, SubjectError};
use wire::{Delivered, Failure, Reason};

use crate::call::CallContext;
use crate::control::Control;
use crate::failures::unfit;
use crate::route_state::RouteState;

/// What a call sends.
#[derive(Clone)]
pub(crate) struct Outgoing<'a> {
    pub(crate) subject: Subject,
    pub(crate) payload: Bytes,
    /// Tells the service when nobody waits, if the route wants it.
    pub(crate) control: Option<&'a Control>,
}

/// The subject for a request.
pub(crate) fn address(
    route: &Route,
    state: &RouteState,
    request: &[u8],
    call: &CallContext,
) -> Result<Subject, Failure> {
    if let Some(subject) = state.fixed() {
        return Ok(subject.clone());
    }
    route.subject.expand(request, call.tenant.as_deref()).map(Subject::from).map_err(|error| match error {
        SubjectError::Field(error) => unfit(&error),
        SubjectError::Tenant => {
            Failure::new(Reason::PermissionDenied, error.to_string()).delivered(Delivered::No)
        }
    })
}
