//! Authentication: from the credentials of a call (a bearer token, an API key, a client certificate) to a `Caller`, or
//! to the reason for its rejection. Done once per call, before any work. Must not depend on what a call does, nor on
//! gRPC.

pub mod apikey;
mod cache;
mod certificate;
mod claims;
pub(crate) mod end;
mod faults;
mod fetch;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod jwks;
mod jwt;
mod keyset;
mod list;
mod quota;
mod scopes;
mod trust;
mod verify;

use std::fmt;
use std::sync::Arc;

use admission::budget::CallerShare;
use anyhow::Context;
use contract::access::Rule;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::sync::watch;
use tokio::time::Instant;
use wire::{Delivered, Failure, Reason};

pub(crate) use certificate::PeerIdentity;
pub(crate) use faults::faults;
use quota::{CallerQuota, Quotas};
pub(crate) use scopes::Scopes;
pub(crate) use trust::{Authorities, Standing, Trust, unix};

use crate::config::access::Access as Config;
use crate::fresh::{Kept, Sources, Stale};
use crate::reload::Reload;
use crate::share::{Share, Shares};
use crate::supervisor::Supervisor;

const API_KEY: &str = "x-api-key";
/// Maximum length of a principal, in bytes: it is sent in a header.
const PRINCIPAL: usize = 256;
/// The characters that are percent-encoded in a principal: everything except visible ASCII, and `%` itself.
const REPLACED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// An authenticated caller.
pub struct Caller {
    /// `jwt:`, `key:` or `cert:`, and the name, percent-encoded if it is not plain ASCII.
    pub principal: Box<str>,
    /// The customer whose orders the caller is restricted to; none: all orders.
    pub tenant: Option<Box<str>>,
    scopes: Scopes,
    account: Arc<CallerQuota>,
}

/// Authentication. One for all threads of a gateway.
pub(crate) struct Access {
    bearer: Option<jwt::Bearer>,
    keys: Option<Kept<apikey::Keys>>,
    clients: Option<certificate::Clients>,
    accounts: Quotas,
}

/// A task that keeps something up to date for ever.
type UpkeepTask = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks that keep keys and lists up to date, to be run on one thread while the gateway runs.
#[derive(Default)]
pub(crate) struct Upkeep {
    /// Each with its name.
    tasks: Vec<(String, UpkeepTask)>,
    sources: Sources,
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

/// The credential of a call.
enum Credential<'a> {
    Bearer(&'a str),
    ApiKey(&'a str),
    Badge(&'a PeerIdentity),
}

impl Access {
    /// Reads keys and lists for the first time. None if authentication is off.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Option<(Access, Upkeep)>> {
        if !config.required() {
            return Ok(None);
        }
        let mut upkeep = Upkeep::default();
        let bearer = match config.tokens() {
            true => Some(jwt::Bearer::open(config, &mut upkeep).await?),
            false => None,
        };
        let keys = match &config.api_keys {
            Some(path) => {
                let keys = Reload::open("API keys (GW_API_KEYS)", vec![path.clone()], apikey::Keys::read)?;
                Some(upkeep.guard(keys.within("api_keys", config.max_stale())))
            }
            None => None,
        };
        let clients = certificate::Clients::open(config, &mut upkeep).context("client certificates")?;
        let accounts = Quotas::new(config.caller_in_flight as usize, config.caller_rate);
        Ok(Some((Access { bearer, keys, clients, accounts }, upkeep)))
    }

    /// Authenticates a caller. It waits only if a token names an unknown key, which may be new: the wait counts against
    /// the fair share of the connection.
    pub(crate) async fn caller(
        &self,
        headers: &HeaderMap,
        badge: Option<&PeerIdentity>,
        shares: Option<&Arc<Shares>>,
    ) -> Result<Arc<Caller>, AuthError> {
        match credential(headers, badge)? {
            Credential::Bearer(token) => {
                self.bearer.as_ref().ok_or(AuthError::NoTokens)?.caller(token, &self.accounts, shares).await
            }
            Credential::ApiKey(key) => {
                let keys = self.keys.as_ref().ok_or(AuthError::NoKeys)?.get()?;
                keys.caller(key, &self.accounts)
            }
            Credential::Badge(badge) => {
                self.clients.as_ref().ok_or(AuthError::Nothing)?.caller(badge, &self.accounts)
            }
        }
    }
}

/// The headers with credentials only. They are kept while a watch lasts, and marked sensitive.
pub(crate) fn credentials(headers: &HeaderMap) -> HeaderMap {
    let mut found = HeaderMap::new();
    for name in [AUTHORIZATION, HeaderName::from_static(API_KEY)] {
        for value in headers.get_all(&name) {
            // Copied, because the value is a slice of the connection's read buffer.
            let mut value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
            value.set_sensitive(true);
            found.append(name.clone(), value);
        }
    }
    found
}

/// The only credential of a call; with two, the caller would be ambiguous. A credential of the call takes precedence
/// over the client certificate, which belongs to the connection.
fn credential<'a>(
    headers: &'a HeaderMap,
    badge: Option<&'a PeerIdentity>,
) -> Result<Credential<'a>, AuthError> {
    let mut bearers = headers.get_all(AUTHORIZATION).iter();
    let mut keys = headers.get_all(API_KEY).iter();
    // The limit on headers bounds its length.
    let text = |value: &'a http::HeaderValue| value.to_str().ok().filter(|text| !text.is_empty());
    match (bearers.next(), bearers.next(), keys.next(), keys.next()) {
        (Some(bearer), None, None, None) => {
            let (scheme, token) =
                text(bearer).and_then(|text| text.split_once(' ')).ok_or(AuthError::Scheme)?;
            let token = token.trim_start_matches(' ');
            let bearer = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty();
            if bearer { Ok(Credential::Bearer(token)) } else { Err(AuthError::Scheme) }
        }
        (None, None, Some(key), None) => text(key).map(Credential::ApiKey).ok_or(AuthError::ApiKey),
        (None, None, None, None) => badge.map(Credential::Badge).ok_or(AuthError::Nothing),
        _ => Err(AuthError::Several),
    }
}

/// A principal: the name in plain ASCII, unique for each name.
fn principal(kind: &str, name: &str) -> Option<Box<str>> {
    let principal = format!("{kind}:{}", utf8_percent_encode(name, REPLACED));
    (!name.is_empty() && principal.len() <= PRINCIPAL).then(|| principal.into())
}

impl Caller {
    /// Checks an access rule.
    pub(crate) fn allowed(&self, rule: &Rule) -> Result<(), Failure> {
        if self.scopes.have(rule.scope) {
            return Ok(());
        }
        let message = format!("{} requires the scope {}", rule.path, rule.scope);
        Err(Failure::new(Reason::PermissionDenied, message)
            .with("scope", rule.scope)
            .delivered(Delivered::No))
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

impl Upkeep {
    /// Keeps a value that comes from files up to date.
    pub(crate) fn keep<T: Send + Sync + 'static>(&mut self, reload: Reload<T>) -> watch::Receiver<Arc<T>> {
        let latest = reload.latest();
        self.tasks.push((format!("reload of {}", reload.what()), Box::pin(reload.keep())));
        latest
    }

    /// Keeps keys, lists or CA certificates up to date: if that fails for too long, credentials that depend on them are
    /// rejected.
    pub(crate) fn guard<T: Send + Sync + 'static>(&mut self, reload: Reload<T>) -> Kept<T> {
        let fresh = reload.fresh().clone();
        self.sources.0.push(fresh.clone());
        Kept::new(self.keep(reload), fresh)
    }

    /// Adds another task.
    pub(crate) fn also(&mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push((name.to_owned(), Box::pin(task)));
    }

    /// The freshness of all sources.
    pub(crate) fn sources(&self) -> Sources {
        self.sources.clone()
    }

    /// Runs all tasks on the current runtime.
    pub(crate) fn spawn(self, supervisor: &Supervisor) {
        self.tasks.into_iter().for_each(|(name, task)| supervisor.spawn(name, task));
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(pairs: &[(&'static str, &str)], badge: Option<&PeerIdentity>) -> Result<String, AuthError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Ok(match credential(&headers, badge)? {
            Credential::Bearer(token) => format!("token {token}"),
            Credential::ApiKey(key) => format!("key {key}"),
            Credential::Badge(_) => "badge".to_owned(),
        })
    }

    #[test]
    fn one_credential_is_found_and_two_are_refused() {
        let token = ("authorization", "bEARER  x.y.z");
        let key = ("x-api-key", "k");
        let badge = PeerIdentity::new(["spiffe://here/ann".to_owned()]);
        assert_eq!(found(&[token], Some(&badge)), Ok("token x.y.z".to_owned()));
        assert_eq!(found(&[key], None), Ok("key k".to_owned()));
        assert_eq!(found(&[], Some(&badge)), Ok("badge".to_owned()));
        assert_eq!(found(&[], None), Err(AuthError::Nothing));
        for several in [&[token, token][..], &[key, key], &[token, key]] {
            assert_eq!(found(several, None), Err(AuthError::Several));
        }
        for bad in ["", "Bearer", "Bearer ", "Basic eDp5", "x.y.z", "Bearer \u{fc}"] {
            assert_eq!(found(&[("authorization", bad)], Some(&badge)), Err(AuthError::Scheme), "{bad:?}");
        }
        let long = "k".repeat(1 << 20);
        assert_eq!(found(&[("x-api-key", &long)], None), Ok(format!("key {long}")));
        let bearer = format!("Bearer {long}");
        assert_eq!(found(&[("authorization", &bearer)], None), Ok(format!("token {long}")));
        assert_eq!(found(&[("x-api-key", "")], Some(&badge)), Err(AuthError::ApiKey));
    }

    #[test]
    fn credentials_that_are_kept_are_never_printed() {
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer s3cret"));
        headers.append(API_KEY, HeaderValue::from_static("shop.s3cret"));
        let kept = credentials(&headers);
        assert!(kept.len() == 2 && !format!("{kept:?}").contains("s3cret"), "{kept:?}");
        assert_eq!(kept[AUTHORIZATION], headers[AUTHORIZATION]);
    }

    proptest! {
        #[test]
        fn two_names_never_become_one_and_each_fits_a_header(one in ".{0,40}", two in ".{0,40}") {
            let (first, second) = (principal("jwt", &one), principal("jwt", &two));
            prop_assert_eq!(first == second, one == two || (first.is_none() && second.is_none()));
            for principal in [first, second].into_iter().flatten() {
                prop_assert!(principal.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
