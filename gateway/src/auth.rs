//! Who calls: from what a call carries (a bearer token, an API key, the client's certificate) to a `Caller`, or to why
//! nobody is known. Decided once per call, before any work. Must never know what a call does, nor gRPC.

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

use admission::budget::Share;
use anyhow::Context;
use contract::access::Rule;
use contract::{Delivered, Failure, Reason};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use certificate::Badge;
pub(crate) use faults::faults;
use quota::{Account, Accounts};
pub(crate) use scopes::Scopes;
pub(crate) use trust::{Authorities, Standing, Trust, unix};

use crate::config::access::Access as Config;
use crate::fresh::{Kept, Sources, Stale};
use crate::reload::Reload;
use crate::share::{Hold, Shares};

const API_KEY: &str = "x-api-key";
/// Bytes of a principal: it travels in a header.
const PRINCIPAL: usize = 256;
/// What a principal has as it is: all of ASCII that can be seen, but for the sign of what was replaced.
const REPLACED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Somebody who is known.
pub struct Caller {
    /// Who: `jwt:`, `key:` or `cert:`, and the name, percent-encoded where it is not plain ASCII.
    pub principal: Box<str>,
    /// The customer whose orders alone may be seen; none: all.
    pub customer: Option<Box<str>>,
    scopes: Scopes,
    account: Arc<Account>,
}

/// How callers are known. One for all threads of a gateway.
pub(crate) struct Access {
    bearer: Option<jwt::Bearer>,
    keys: Option<Kept<apikey::Keys>>,
    clients: Option<certificate::Clients>,
    accounts: Accounts,
}

/// What keeps keys and lists up to date; to be run on one thread, as long as the gateway does.
#[derive(Default)]
pub(crate) struct Upkeep {
    tasks: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>,
    sources: Sources,
}

/// Why nobody is known. What it says reaches the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unknown {
    #[error("a bearer token, an x-api-key or a client certificate is needed")]
    Nothing,
    #[error("there is more than one credential")]
    Several,
    #[error("the authorization is no bearer token")]
    Scheme,
    #[error("tokens are not taken here")]
    NoTokens,
    #[error("API keys are not taken here")]
    NoKeys,
    #[error("the token cannot be read")]
    Unreadable,
    #[error("the token's algorithm is not allowed")]
    Algorithm,
    #[error("the token's key is not known")]
    Key,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token lacks a claim, or has one that makes no sense")]
    Claims,
    #[error("the API key is not known")]
    ApiKey,
    #[error("the client certificate names nobody who is known")]
    Certificate,
    #[error("the client certificate has ended, or its authority is trusted no longer")]
    Ended,
    #[error("the keys that tokens are checked with could not be had yet")]
    NoKeysYet,
    #[error("too many calls wait for the token's key; repeat")]
    Busy,
    #[error("what says who may call could not be read for too long")]
    Stale,
}

/// What a call carries.
enum Credential<'a> {
    Bearer(&'a str),
    ApiKey(&'a str),
    Badge(&'a Badge),
}

impl Access {
    /// Reads keys and lists for the first time. None where nobody has to be known.
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
        let accounts = Accounts::new(config.caller_in_flight as usize, config.caller_rate);
        Ok(Some((Access { bearer, keys, clients, accounts }, upkeep)))
    }

    /// Who calls. Waits only where a token names a key that has just come into use: in a place that counts among the shares of
    /// the connection.
    pub(crate) async fn caller(
        &self,
        headers: &HeaderMap,
        badge: Option<&Badge>,
        shares: Option<&Arc<Shares>>,
    ) -> Result<Arc<Caller>, Unknown> {
        match credential(headers, badge)? {
            Credential::Bearer(token) => {
                self.bearer.as_ref().ok_or(Unknown::NoTokens)?.caller(token, &self.accounts, shares).await
            }
            Credential::ApiKey(key) => {
                let keys = self.keys.as_ref().ok_or(Unknown::NoKeys)?.get()?;
                keys.caller(key, &self.accounts)
            }
            Credential::Badge(badge) => {
                self.clients.as_ref().ok_or(Unknown::Nothing)?.caller(badge, &self.accounts)
            }
        }
    }
}

/// The headers that have credentials, alone. They are kept for as long as a watch lasts, and never printed.
pub(crate) fn credentials(headers: &HeaderMap) -> HeaderMap {
    let mut found = HeaderMap::new();
    for name in [AUTHORIZATION, HeaderName::from_static(API_KEY)] {
        for value in headers.get_all(&name) {
            // A copy: the value is a part of all that was read from the connection with it.
            let mut value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
            value.set_sensitive(true);
            found.append(name.clone(), value);
        }
    }
    found
}

/// One credential, or none: with two, nobody could say who called. A certificate is the connection's, not the call's,
/// so a credential of the call goes before it.
fn credential<'a>(headers: &'a HeaderMap, badge: Option<&'a Badge>) -> Result<Credential<'a>, Unknown> {
    let mut bearers = headers.get_all(AUTHORIZATION).iter();
    let mut keys = headers.get_all(API_KEY).iter();
    // How long it may be is the business of the limit on headers alone.
    let text = |value: &'a http::HeaderValue| value.to_str().ok().filter(|text| !text.is_empty());
    match (bearers.next(), bearers.next(), keys.next(), keys.next()) {
        (Some(bearer), None, None, None) => {
            let (scheme, token) =
                text(bearer).and_then(|text| text.split_once(' ')).ok_or(Unknown::Scheme)?;
            let token = token.trim_start_matches(' ');
            let bearer = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty();
            if bearer { Ok(Credential::Bearer(token)) } else { Err(Unknown::Scheme) }
        }
        (None, None, Some(key), None) => text(key).map(Credential::ApiKey).ok_or(Unknown::ApiKey),
        (None, None, None, None) => badge.map(Credential::Badge).ok_or(Unknown::Nothing),
        _ => Err(Unknown::Several),
    }
}

/// A principal: the name in plain ASCII, and never the same for two names.
fn principal(kind: &str, name: &str) -> Option<Box<str>> {
    let principal = format!("{kind}:{}", utf8_percent_encode(name, REPLACED));
    (!name.is_empty() && principal.len() <= PRINCIPAL).then(|| principal.into())
}

impl Caller {
    /// Whether a rule lets this caller in.
    pub(crate) fn allowed(&self, rule: &Rule) -> Result<(), Failure> {
        if self.scopes.have(rule.scope) {
            return Ok(());
        }
        let message = format!("{} needs the scope {}", rule.path, rule.scope);
        Err(Failure::new(Reason::PermissionDenied, message)
            .with("scope", rule.scope)
            .delivered(Delivered::No))
    }

    /// What this caller's requests hold.
    pub(crate) fn bytes(&self) -> &Arc<Share> {
        &self.account.bytes
    }

    /// A place among what this caller may have in hand.
    pub(crate) fn enter(&self) -> Result<Hold, Failure> {
        self.account.enter(Instant::now())
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl Upkeep {
    /// Keeps something made of files up to date.
    pub(crate) fn keep<T: Send + Sync + 'static>(&mut self, reload: Reload<T>) -> watch::Receiver<Arc<T>> {
        let latest = reload.latest();
        self.tasks.push(Box::pin(reload.keep()));
        latest
    }

    /// Keeps something up to date that says who may call: where that does not succeed for too long, nobody may.
    pub(crate) fn guard<T: Send + Sync + 'static>(&mut self, reload: Reload<T>) -> Kept<T> {
        let fresh = reload.fresh().clone();
        self.sources.0.push(fresh.clone());
        Kept::new(self.keep(reload), fresh)
    }

    /// Does something else for as long.
    pub(crate) fn also(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(Box::pin(task));
    }

    /// How fresh what says who may call is.
    pub(crate) fn sources(&self) -> Sources {
        self.sources.clone()
    }

    /// Does what there is to do until it is dropped.
    pub(crate) async fn run(self) {
        let mut tasks: JoinSet<()> = self.tasks.into_iter().collect();
        while tasks.join_next().await.is_some() {}
    }
}

impl From<Stale> for Unknown {
    fn from(_: Stale) -> Unknown {
        Unknown::Stale
    }
}

impl From<Unknown> for Failure {
    fn from(unknown: Unknown) -> Failure {
        let reason = match unknown {
            Unknown::NoKeysYet | Unknown::Busy | Unknown::Stale => Reason::KeysUnavailable,
            _ => Reason::Unauthenticated,
        };
        let failure = Failure::new(reason, unknown.to_string()).delivered(Delivered::No);
        if reason == Reason::KeysUnavailable { failure.retry_after(link::failure::RETRY) } else { failure }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(pairs: &[(&'static str, &str)], badge: Option<&Badge>) -> Result<String, Unknown> {
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
        let badge = Badge::new(["spiffe://here/ann".to_owned()]);
        assert_eq!(found(&[token], Some(&badge)), Ok("token x.y.z".to_owned()));
        assert_eq!(found(&[key], None), Ok("key k".to_owned()));
        assert_eq!(found(&[], Some(&badge)), Ok("badge".to_owned()));
        assert_eq!(found(&[], None), Err(Unknown::Nothing));
        for several in [&[token, token][..], &[key, key], &[token, key]] {
            assert_eq!(found(several, None), Err(Unknown::Several));
        }
        for bad in ["", "Bearer", "Bearer ", "Basic eDp5", "x.y.z", "Bearer \u{fc}"] {
            assert_eq!(found(&[("authorization", bad)], Some(&badge)), Err(Unknown::Scheme), "{bad:?}");
        }
        let long = "k".repeat(1 << 20);
        assert_eq!(found(&[("x-api-key", &long)], None), Ok(format!("key {long}")));
        let bearer = format!("Bearer {long}");
        assert_eq!(found(&[("authorization", &bearer)], None), Ok(format!("token {long}")));
        assert_eq!(found(&[("x-api-key", "")], Some(&badge)), Err(Unknown::ApiKey));
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
