//! Bearer tokens: verified with a key of the JWKS, or with the secret, and checked for issuer, audience and time. The
//! algorithm determines where the key is looked up, so that a public key is never used as a secret.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use catalog::Catalog;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::cache::{Cache, mark};
use super::claims::{Claims, Names};
use super::jwks::Keys;
use super::keyset::VerifiedToken;
use super::quota::Quotas;
use super::{AuthError, Caller, Upkeep, principal, verify};
use crate::config::access as config;
use crate::fresh::Kept;
use crate::reload::{Contents, Reload};
use crate::served::Current;
use bridge::share::Shares;

/// Tolerated clock skew between issuers and the gateway, in seconds.
const SKEW: u64 = 60;
/// Maximum time a token is cached: prevents overflow with very late expiry times.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Minimum length of a secret, in bytes: the size of the hash of HS256.
const SECRET: usize = 32;

/// Verifies bearer tokens.
pub(super) struct Bearer {
    keys: Option<Keys>,
    secret: Option<Kept<VerifiedToken>>,
    /// The accepted algorithms for keys of the JWKS.
    public: Vec<Algorithm>,
    /// All checks except the algorithm.
    validation: Validation,
    current: Current,
    names: Names,
    cache: Cache<VerifiedToken>,
}

/// The requirements of every token.
pub(super) fn validation(config: &config::Access) -> anyhow::Result<Validation> {
    let issuer = config.jwt_issuer.as_deref().unwrap_or_default();
    if config.jwt_audience.is_empty() || issuer.is_empty() {
        bail!("bearer tokens require an issuer and an audience (GW_JWT_ISSUER, GW_JWT_AUDIENCE)");
    }
    let mut validation = Validation::default();
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&config.jwt_audience);
    (validation.leeway, validation.validate_nbf) = (SKEW, true);
    Ok(validation)
}

impl Bearer {
    /// Reads or fetches keys for the first time.
    pub(super) async fn open(
        config: &config::Access,
        current: &Current,
        upkeep: &mut Upkeep,
    ) -> anyhow::Result<Bearer> {
        verify::install();
        let validation = validation(config)?;
        let keys = match &config.jwt_jwks {
            Some(place) => Some(Keys::open(place, config, upkeep).await?),
            None => None,
        };
        let secret = match &config.jwt_secret_file {
            Some(path) => {
                let secret = Reload::open("JWT secret (GW_JWT_SECRET_FILE)", vec![path.clone()], secret)?;
                Some(upkeep.guard(secret.within("jwt_secret", config.max_stale())))
            }
            None => None,
        };
        let public = config.jwt_algorithms.iter().map(|algorithm| match algorithm {
            config::Algorithm::RS256 => Algorithm::RS256,
            config::Algorithm::ES256 => Algorithm::ES256,
            config::Algorithm::EdDSA => Algorithm::EdDSA,
        });
        let names =
            Names { scopes: config.jwt_scope_claim.clone(), customer: config.jwt_customer_claim.clone() };
        let (public, current, cache) = (public.collect(), current.clone(), Cache::default());
        Ok(Bearer { keys, secret, public, validation, current, names, cache })
    }

    /// The caller with this token.
    pub(super) async fn caller(
        &self,
        token: &str,
        accounts: &Quotas,
        shares: Option<&Arc<Shares>>,
    ) -> Result<Arc<Caller>, AuthError> {
        // What is remembered has the scopes of one catalog.
        let known = mark(token, self.current.look().number());
        let remembered = self.cache.get(&known, Instant::now(), |proof| self.current(proof));
        if let Some(caller) = remembered.filter(|caller| caller.account.current()) {
            return Ok(caller);
        }
        let header = decode_header(token).map_err(|_| AuthError::Unreadable)?;
        // Critical extensions that are not understood require rejection (RFC 7515, 4.1.11); none are supported.
        if header.crit.is_some() {
            return Err(AuthError::Unreadable);
        }
        let proof = self.proof(&header, shares).await?;
        let served = self.current.served();
        let claims = self.claims(served.catalog(), token, &header, &proof)?;
        let until = moment(claims.expires.saturating_add(SKEW));
        let principal = principal("jwt", &claims.subject).ok_or(AuthError::Claims)?;
        let caller = Arc::new(Caller {
            account: accounts.of(&principal),
            principal,
            tenant: claims.customer,
            scopes: claims.scopes,
        });
        self.cache.put(mark(token, served.number()), caller.clone(), until, proof);
        Ok(caller)
    }

    /// The keys for a token, by its algorithm.
    async fn proof(
        &self,
        header: &Header,
        shares: Option<&Arc<Shares>>,
    ) -> Result<Arc<VerifiedToken>, AuthError> {
        match header.alg {
            Algorithm::HS256 => Ok(self.secret.as_ref().ok_or(AuthError::Algorithm)?.get()?),
            public if self.public.contains(&public) => {
                let keys = self.keys.as_ref().ok_or(AuthError::Algorithm)?;
                Ok(keys.with(header.kid.as_deref(), public, shares).await?)
            }
            _ => Err(AuthError::Algorithm),
        }
    }

    fn claims(
        &self,
        catalog: &Catalog,
        token: &str,
        header: &Header,
        proof: &VerifiedToken,
    ) -> Result<Claims, AuthError> {
        let key = match proof {
            VerifiedToken::Keys(keys) => {
                keys.find(header.kid.as_deref(), header.alg).ok_or(AuthError::Key)?
            }
            VerifiedToken::Secret(key) => key,
        };
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let token = decode::<Map<String, Value>>(token, key, &validation)
            .map_err(|error| unknown(error.into_kind()))?;
        Claims::read(catalog, &token.claims, &self.names)
    }

    /// Whether these are the keys that a token would be verified with now.
    fn current(&self, proof: &Arc<VerifiedToken>) -> bool {
        match &**proof {
            VerifiedToken::Keys(_) => self.keys.as_ref().is_some_and(|keys| keys.are(proof)),
            VerifiedToken::Secret(_) => self.secret.as_ref().is_some_and(|secret| secret.is(proof)),
        }
    }
}

fn secret(contents: &[Contents]) -> anyhow::Result<VerifiedToken> {
    let text = contents.first().map(|text| text.trim_ascii_end()).unwrap_or_default();
    if text.len() < SECRET {
        bail!("the secret must have at least {SECRET} bytes");
    }
    Ok(VerifiedToken::Secret(DecodingKey::from_secret(text)))
}

/// The instant of a Unix time; now, if it is in the past.
fn moment(unix: u64) -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::now() + Duration::from_secs(unix).saturating_sub(now).min(LONGEST)
}

fn unknown(kind: ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::ExpiredSignature => AuthError::Expired,
        ErrorKind::ImmatureSignature => AuthError::Early,
        ErrorKind::InvalidAudience => AuthError::Audience,
        ErrorKind::InvalidIssuer => AuthError::Issuer,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => AuthError::Algorithm,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => AuthError::Claims,
        _ => AuthError::Unreadable,
    }
}
