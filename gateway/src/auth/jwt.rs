//! Bearer tokens: signed by a key of the JWKS, or with the one secret, and good for us now. The algorithm decides where
//! the key is looked for, so that a public key is never taken for a secret.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::cache::{Cache, mark};
use super::claims::{Claims, Names};
use super::jwks::Keys;
use super::keyset::KeySet;
use super::quota::Accounts;
use super::{Caller, Unknown, Upkeep, principal, verify};
use crate::config::access as config;
use crate::fresh::Kept;
use crate::reload::{Contents, Reload};
use crate::share::Shares;

/// How far the clocks of issuers and ours may be apart, in seconds.
const SKEW: u64 = 60;
/// No token is remembered for longer, as no clock counts without end.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Bytes of a secret: HS256 is as strong as its key, and no stronger than its hash.
const SECRET: usize = 32;

/// Checks bearer tokens.
pub(super) struct Bearer {
    keys: Option<Keys>,
    secret: Option<Kept<Proof>>,
    /// What may be signed with a key of the JWKS.
    public: Vec<Algorithm>,
    /// All but the algorithm.
    validation: Validation,
    names: Names,
    cache: Cache<Proof>,
}

/// What a token was checked with.
pub(super) enum Proof {
    Keys(KeySet),
    Secret(DecodingKey),
}

/// What every token has to say.
pub(super) fn validation(config: &config::Access) -> anyhow::Result<Validation> {
    let issuer = config.jwt_issuer.as_deref().unwrap_or_default();
    if config.jwt_audience.is_empty() || issuer.is_empty() {
        bail!("tokens need their issuer and their audience as well (GW_JWT_ISSUER, GW_JWT_AUDIENCE)");
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
    pub(super) async fn open(config: &config::Access, upkeep: &mut Upkeep) -> anyhow::Result<Bearer> {
        verify::install();
        let validation = validation(config)?;
        let keys = match &config.jwt_jwks {
            Some(place) => Some(Keys::open(place, config, upkeep).await?),
            None => None,
        };
        let secret = match &config.jwt_secret_file {
            Some(path) => {
                let secret =
                    Reload::open("the tokens' secret (GW_JWT_SECRET_FILE)", vec![path.clone()], secret)?;
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
        Ok(Bearer { keys, secret, public: public.collect(), validation, names, cache: Cache::default() })
    }

    /// Who bears a token.
    pub(super) async fn caller(
        &self,
        token: &str,
        accounts: &Accounts,
        shares: Option<&Arc<Shares>>,
    ) -> Result<Arc<Caller>, Unknown> {
        let mark = mark(token);
        let remembered = self.cache.get(&mark, Instant::now(), |proof| self.current(proof));
        if let Some(caller) = remembered.filter(|caller| caller.account.current()) {
            return Ok(caller);
        }
        let header = decode_header(token).map_err(|_| Unknown::Unreadable)?;
        // Whoever does not understand what is critical must not go on; nothing of that is understood here.
        if header.crit.is_some() {
            return Err(Unknown::Unreadable);
        }
        let proof = self.proof(&header, shares).await?;
        let claims = self.claims(token, &header, &proof)?;
        let until = moment(claims.expires.saturating_add(SKEW));
        let principal = principal("jwt", &claims.subject).ok_or(Unknown::Claims)?;
        let caller = Arc::new(Caller {
            account: accounts.of(&principal),
            principal,
            customer: claims.customer,
            scopes: claims.scopes,
        });
        self.cache.put(mark, caller.clone(), until, proof);
        Ok(caller)
    }

    /// Where the key of a token is, by its algorithm.
    async fn proof(&self, header: &Header, shares: Option<&Arc<Shares>>) -> Result<Arc<Proof>, Unknown> {
        match header.alg {
            Algorithm::HS256 => Ok(self.secret.as_ref().ok_or(Unknown::Algorithm)?.get()?),
            public if self.public.contains(&public) => {
                let keys = self.keys.as_ref().ok_or(Unknown::Algorithm)?;
                Ok(keys.with(header.kid.as_deref(), public, shares).await?)
            }
            _ => Err(Unknown::Algorithm),
        }
    }

    fn claims(&self, token: &str, header: &Header, proof: &Proof) -> Result<Claims, Unknown> {
        let key = match proof {
            Proof::Keys(keys) => keys.find(header.kid.as_deref(), header.alg).ok_or(Unknown::Key)?,
            Proof::Secret(key) => key,
        };
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let token = decode::<Map<String, Value>>(token, key, &validation)
            .map_err(|error| unknown(error.into_kind()))?;
        Claims::read(&token.claims, &self.names)
    }

    /// Whether this is what a token would be checked with now.
    fn current(&self, proof: &Arc<Proof>) -> bool {
        match &**proof {
            Proof::Keys(_) => self.keys.as_ref().is_some_and(|keys| keys.are(proof)),
            Proof::Secret(_) => self.secret.as_ref().is_some_and(|secret| secret.is(proof)),
        }
    }
}

fn secret(contents: &[Contents]) -> anyhow::Result<Proof> {
    let text = contents.first().map(|text| text.trim_ascii_end()).unwrap_or_default();
    if text.len() < SECRET {
        bail!("a secret has at least {SECRET} bytes");
    }
    Ok(Proof::Secret(DecodingKey::from_secret(text)))
}

/// The moment of a unix time; one that is past is now.
fn moment(unix: u64) -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::now() + Duration::from_secs(unix).saturating_sub(now).min(LONGEST)
}

fn unknown(kind: ErrorKind) -> Unknown {
    match kind {
        ErrorKind::InvalidSignature => Unknown::Signature,
        ErrorKind::ExpiredSignature => Unknown::Expired,
        ErrorKind::ImmatureSignature => Unknown::Early,
        ErrorKind::InvalidAudience => Unknown::Audience,
        ErrorKind::InvalidIssuer => Unknown::Issuer,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Unknown::Algorithm,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Unknown::Claims,
        _ => Unknown::Unreadable,
    }
}
