//! What a call sends: where, what, and what it tells the service about itself. Must not send it.

use std::borrow::Cow;

use async_nats::Subject;
use bytes::Bytes;
use catalog::{Route, SubjectError};
use transcode::FieldPath;
use wire::{Delivered, Failure, Reason};

use crate::call::{CallContext, Tenancy};
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

/// The tenant that a request is for: that of its caller, or of a caller for all tenants the one that the request names.
///
/// # Errors
///
/// The route keeps tenants apart by a field of the request, and it is not the caller's tenant.
pub(crate) fn tenant<'a>(
    route: &Route,
    request: &[u8],
    call: &'a CallContext,
) -> Result<Option<Cow<'a, str>>, Failure> {
    let own = call.tenant.one();
    let Some(field) = &route.tenant_field else { return Ok(own.map(Cow::Borrowed)) };
    let named = field.read(request).map_err(|error| unfit(&error))?.map(|value| value.to_string());
    match &call.tenant {
        Tenancy::All => Ok(named.map(Cow::Owned)),
        Tenancy::One(own) if named.as_deref() == Some(own) => Ok(Some(Cow::Borrowed(own))),
        Tenancy::One(_) => {
            let what = "has to be the tenant of the caller's credential: set it to that";
            Err(foreign(route, field, what))
        }
        Tenancy::Unnamed => {
            let what = "has to be the tenant of the caller's credential, which names none: use one for a tenant, or for all";
            Err(foreign(route, field, what))
        }
    }
}

fn foreign(route: &Route, field: &FieldPath, what: &str) -> Failure {
    let message = format!("the field {:?} of the request of {} {what}", field.path(), route.rpc);
    Failure::new(Reason::PermissionDenied, message).with("field", field.path()).delivered(Delivered::No)
}

/// The subject for a request.
///
/// # Errors
///
/// A field of it does not fit, or the request is not for the caller's tenant.
pub(crate) fn address(
    route: &Route,
    state: &RouteState,
    request: &[u8],
    call: &CallContext,
) -> Result<Subject, Failure> {
    let tenant = tenant(route, request, call)?;
    if let Some(subject) = state.fixed() {
        return Ok(subject.clone());
    }
    route.subject.expand(request, tenant.as_deref()).map(Subject::from).map_err(|error| match error {
        SubjectError::Field(error) => unfit(&error),
        SubjectError::Tenant => {
            Failure::new(Reason::PermissionDenied, error.to_string()).delivered(Delivered::No)
        }
    })
}
