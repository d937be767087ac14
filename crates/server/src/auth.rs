//! Authentication: from the credentials of a call (a bearer token, an API key, a client certificate) to a `Caller`, or
//! to the reason for its rejection. Done once per call, before any work. Must not depend on what a call does, nor on
//! gRPC.

pub mod apikey;
mod cache;
mod caller;
mod certificate;
mod claims;
pub(crate) mod end;
mod faults;
mod fetch;
#[cfg(any(test, fuzzing, feature = "fuzz"))]
pub mod fuzz;
mod jwks;
mod jwt;
mod keyset;
mod list;
mod quota;
mod scopes;
mod trust;
mod upkeep;
mod verify;

use std::sync::Arc;

use anyhow::Context;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

pub(crate) use caller::AuthError;
pub use caller::Caller;
use caller::principal;
pub(crate) use certificate::PeerIdentity;
pub(crate) use faults::faults;
use quota::Quotas;
pub(crate) use scopes::Scopes;
pub(crate) use trust::{Authorities, Standing, Trust, unix};
pub use upkeep::Upkeep;

use crate::config::access::Access as Config;
use crate::fresh::Kept;
use crate::reload::Reload;
use crate::served::Current;
use bridge::share::Shares;

const API_KEY: &str = "x-api-key";

/// Authentication. One for all threads of a gateway.
pub(crate) struct Access {
    bearer: Option<jwt::Bearer>,
    keys: Option<Kept<apikey::Keys>>,
    clients: Option<certificate::Clients>,
    accounts: Quotas,
}

/// The credential of a call.
enum Credential<'a> {
    Bearer(&'a str),
    ApiKey(&'a str),
    Certificate(&'a PeerIdentity),
}

impl Access {
    /// Reads keys and lists for the first time. None if authentication is off.
    pub(crate) async fn open(config: &Config, current: &Current) -> anyhow::Result<Option<(Access, Upkeep)>> {
        if !config.required() {
            return Ok(None);
        }
        let mut upkeep = Upkeep::default();
        let bearer = match config.tokens() {
            true => Some(jwt::Bearer::open(config, current, &mut upkeep).await?),
            false => None,
        };
        let keys = match &config.api_keys {
            Some(path) => {
                let keys = Reload::open(
                    "API keys (GW_API_KEYS)",
                    vec![path.clone()],
                    apikey::Keys::reader(current),
                )?;
                let keys = keys.within("api_keys", config.max_stale()).depending_on(current);
                Some(upkeep.guard(keys))
            }
            None => None,
        };
        let clients =
            certificate::Clients::open(config, current, &mut upkeep).context("client certificates")?;
        let accounts = Quotas::new(config.caller_in_flight as usize, config.caller_rate);
        Ok(Some((Access { bearer, keys, clients, accounts }, upkeep)))
    }

    /// Authenticates a caller. It waits only if a token names an unknown key, which may be new: the wait counts against
    /// the fair share of the connection.
    pub(crate) async fn caller(
        &self,
        headers: &HeaderMap,
        peer_identity: Option<&PeerIdentity>,
        shares: Option<&Arc<Shares>>,
    ) -> Result<Arc<Caller>, AuthError> {
        match credential(headers, peer_identity)? {
            Credential::Bearer(token) => {
                self.bearer.as_ref().ok_or(AuthError::NoTokens)?.caller(token, &self.accounts, shares).await
            }
            Credential::ApiKey(key) => {
                let keys = self.keys.as_ref().ok_or(AuthError::NoKeys)?.get()?;
                keys.caller(key, &self.accounts)
            }
            Credential::Certificate(peer_identity) => {
                self.clients.as_ref().ok_or(AuthError::Nothing)?.caller(peer_identity, &self.accounts)
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
    peer_identity: Option<&'a PeerIdentity>,
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
        (None, None, None, None) => peer_identity.map(Credential::Certificate).ok_or(AuthError::Nothing),
        _ => Err(AuthError::Several),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(
        pairs: &[(&'static str, &str)],
        peer_identity: Option<&PeerIdentity>,
    ) -> Result<String, AuthError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Ok(match credential(&headers, peer_identity)? {
            Credential::Bearer(token) => format!("token {token}"),
            Credential::ApiKey(key) => format!("key {key}"),
            Credential::Certificate(_) => "peer_identity".to_owned(),
        })
    }

    #[test]
    fn one_credential_is_found_and_two_are_refused() {
        let token = ("authorization", "bEARER  x.y.z");
        let key = ("x-api-key", "k");
        let peer_identity = PeerIdentity::new(["spiffe://here/ann".to_owned()]);
        assert_eq!(found(&[token], Some(&peer_identity)), Ok("token x.y.z".to_owned()));
        assert_eq!(found(&[key], None), Ok("key k".to_owned()));
        assert_eq!(found(&[], Some(&peer_identity)), Ok("peer_identity".to_owned()));
        assert_eq!(found(&[], None), Err(AuthError::Nothing));
        for several in [&[token, token][..], &[key, key], &[token, key]] {
            assert_eq!(found(several, None), Err(AuthError::Several));
        }
        for bad in ["", "Bearer", "Bearer ", "Basic eDp5", "x.y.z", "Bearer \u{fc}"] {
            assert_eq!(
                found(&[("authorization", bad)], Some(&peer_identity)),
                Err(AuthError::Scheme),
                "{bad:?}"
            );
        }
        let long = "k".repeat(1 << 20);
        assert_eq!(found(&[("x-api-key", &long)], None), Ok(format!("key {long}")));
        let bearer = format!("Bearer {long}");
        assert_eq!(found(&[("authorization", &bearer)], None), Ok(format!("token {long}")));
        assert_eq!(found(&[("x-api-key", "")], Some(&peer_identity)), Err(AuthError::ApiKey));
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
