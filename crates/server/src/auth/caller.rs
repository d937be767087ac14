//! The caller that a credential identifies, and why there is none. Must not read credentials.

use std::fmt;
use std::sync::Arc;

use admission::budget::CallerShare;
use catalog::Rule;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::time::Instant;
use wire::{Delivered, Failure, Reason};

use super::quota::CallerQuota;
use super::scopes::Scopes;
use crate::fresh::Stale;
use bridge::Tenancy;
use bridge::share::Share;

/// Maximum length of a principal, in bytes: it is sent in a header.
pub(super) const PRINCIPAL: usize = 256;
/// The characters that are percent-encoded in a principal: everything except visible ASCII, and `%` itself.
const REPLACED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// An authenticated caller.
pub struct Caller {
    /// `jwt:`, `key:` or `cert:`, and the name, percent-encoded if it is not plain ASCII.
    pub principal: Box<str>,
    /// The tenant that the caller acts for.
    pub tenant: Tenancy,
    pub(super) scopes: Scopes,
    pub(super) account: Arc<CallerQuota>,
}

impl Caller {
    /// Checks an access rule.
    pub(crate) fn allowed(&self, rule: &Rule) -> Result<(), Failure> {
        let Some(scope) = rule.scope().filter(|scope| !self.scopes.have(scope)) else { return Ok(()) };
        let message = format!("{} requires the scope {scope}", rule.path);
        Err(Failure::new(Reason::PermissionDenied, message).with("scope", &**scope).delivered(Delivered::No))
    }

    /// The memory that this caller's requests hold.
    pub(crate) fn bytes(&self) -> &Arc<CallerShare> {
        &self.account.bytes
    }

    /// A permit of this caller's quota of calls in flight.
    pub(crate) fn enter(&self) -> Result<Share, Failure> {
        self.account.enter(Instant::now())
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// Why a caller is not authenticated. The text is sent to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("no credentials: a bearer token, an x-api-key or a client certificate is required")]
    Nothing,
    #[error("the call has more than one credential")]
    Several,
    #[error("the authorization header is not a bearer token")]
    Scheme,
    #[error("bearer tokens are not accepted")]
    NoTokens,
    #[error("API keys are not accepted")]
    NoKeys,
    #[error("the token is malformed")]
    Unreadable,
    #[error("the token's algorithm is not allowed")]
    Algorithm,
    #[error("the token's key is unknown")]
    Key,
    #[error("the token's signature is invalid")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("a claim of the token is missing or invalid")]
    Claims,
    #[error("the API key is unknown")]
    ApiKey,
    #[error("the client certificate belongs to no known client")]
    Certificate,
    #[error("the client certificate has expired, or its CA is no longer trusted")]
    Ended,
    #[error("the keys that verify tokens have not been fetched yet")]
    NoKeysYet,
    #[error("too many calls are waiting for the token's key; retry")]
    Busy,
    #[error("the keys or lists that verify credentials could not be reloaded for too long")]
    Stale,
}

impl From<Stale> for AuthError {
    fn from(_: Stale) -> AuthError {
        AuthError::Stale
    }
}

impl From<AuthError> for Failure {
    fn from(unknown: AuthError) -> Failure {
        let reason = match unknown {
            AuthError::NoKeysYet | AuthError::Busy | AuthError::Stale => Reason::KeysUnavailable,
            _ => Reason::Unauthenticated,
        };
        let failure = Failure::new(reason, unknown.to_string()).delivered(Delivered::No);
        if reason == Reason::KeysUnavailable { failure.retry_after(nats::failure::RETRY) } else { failure }
    }
}

/// A principal: the name in plain ASCII, unique for each name.
pub(super) fn principal(kind: &str, name: &str) -> Option<Box<str>> {
    let principal = format!("{kind}:{}", utf8_percent_encode(name, REPLACED));
    (!name.is_empty() && principal.len() <= PRINCIPAL).then(|| principal.into())
}
