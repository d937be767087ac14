//! Flags of authentication and authorization. Secrets come from files: every process of the machine can see arguments.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cli::units::{between, seconds};

/// Default of calls in flight per caller.
const IN_FLIGHT: u32 = 512;
const REFRESH: Duration = Duration::from_secs(300);
const MAX_STALE: Duration = Duration::from_secs(600);

/// Authentication and authorization: everyone may call, unless one of the first five flags configures authentication.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Access {
    /// Public keys that verify bearer tokens (JWT): a JWKS file, or a URL it is fetched from
    #[arg(long, env = "GW_JWT_JWKS", value_name = "FILE|URL")]
    pub jwt_jwks: Option<Place>,
    /// File with the secret that verifies bearer tokens (HS256), at least 32 bytes
    #[arg(long, env = "GW_JWT_SECRET_FILE", value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,
    /// API keys: a file with lines of `gateway keys new`; reloaded when it changes
    #[arg(long, env = "GW_API_KEYS", value_name = "FILE")]
    pub api_keys: Option<PathBuf>,
    /// Clients by a name in their certificates: a file with lines of `NAME SCOPE,… [CUSTOMER]`; reloaded when it
    /// changes
    #[arg(long, env = "GW_TLS_CLIENTS", value_name = "FILE", requires = "tls_client_ca")]
    pub tls_clients: Option<PathBuf>,
    /// Scopes of clients with a valid certificate that `--tls-clients` does not list
    #[arg(
        long,
        env = "GW_TLS_CLIENT_SCOPES",
        value_delimiter = ',',
        value_name = "SCOPE",
        requires = "tls_client_ca"
    )]
    pub tls_client_scopes: Vec<String>,
    /// Required issuer of tokens (`iss`)
    #[arg(long, env = "GW_JWT_ISSUER", value_name = "TEXT")]
    pub jwt_issuer: Option<String>,
    /// Accepted audiences of tokens (`aud`), separated by commas: a token needs one of them
    #[arg(long, env = "GW_JWT_AUDIENCE", value_delimiter = ',', value_name = "TEXT")]
    pub jwt_audience: Vec<String>,
    /// Accepted algorithms of tokens that are signed with a key of the JWKS
    #[arg(
        long,
        env = "GW_JWT_ALGORITHMS",
        value_enum,
        value_delimiter = ',',
        default_values_t = Algorithm::ALL,
        value_name = "NAME"
    )]
    pub jwt_algorithms: Vec<Algorithm>,
    /// The claim with the scopes: a space-separated string, or an array
    #[arg(long, env = "GW_JWT_SCOPE_CLAIM", default_value = "scope", value_name = "NAME")]
    pub jwt_scope_claim: String,
    /// The claim with the customer whose orders the caller is restricted to, which is the tenant of routes; ["*"] for all
    /// tenants. Without the claim: all orders, and no tenant
    #[arg(long, env = "GW_JWT_CUSTOMER_CLAIM", default_value = "customer_id", value_name = "NAME")]
    pub jwt_customer_claim: String,
    /// How often the JWKS is fetched
    #[arg(long, env = "GW_JWT_JWKS_REFRESH", default_value = "5m", value_parser = refresh, value_name = "DURATION")]
    pub jwt_jwks_refresh: Duration,
    /// CA certificates that verify the JWKS server, PEM; default: the system's
    #[arg(long, env = "GW_JWT_JWKS_CA", value_name = "FILE")]
    pub jwt_jwks_ca: Option<PathBuf>,
    /// Who may use gRPC reflection if callers are authenticated
    #[arg(long, env = "GW_REFLECTION", value_enum, default_value_t, value_name = "WHO")]
    pub reflection: Reflection,
    /// Calls in flight per caller, including watches; one more fails with RESOURCE_EXHAUSTED
    #[arg(long, env = "GW_CALLER_IN_FLIGHT", default_value_t = IN_FLIGHT, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub caller_in_flight: u32,
    /// Rate limit per caller, in calls per second, with a burst of ten seconds' worth; 0: no limit
    #[arg(long, env = "GW_CALLER_RATE", default_value_t = 0, value_name = "N")]
    pub caller_rate: u32,
    /// How long keys, client lists and CA certificates stay in use while they cannot be reloaded; after that,
    /// credentials that depend on them are rejected. 0: forever, so that a key that was removed from a list stays valid
    /// as long as the list cannot be read
    #[arg(long, env = "GW_AUTH_MAX_STALE", default_value = "10m", value_parser = seconds, value_name = "DURATION")]
    pub auth_max_stale: Duration,
    /// Listen on non-loopback addresses without TLS, or without authentication
    #[arg(long, env = "GW_INSECURE")]
    pub insecure: bool,
}

/// `gateway keys new`.
#[derive(Debug, Clone, Args)]
pub struct NewKey {
    /// Name of the caller: 1 to 64 characters of [A-Za-z0-9_-]
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Scopes of the key, separated by commas
    #[arg(long, value_delimiter = ',', required = true, value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// The customer whose orders the key is restricted to, which is the tenant of routes; '*' for all tenants. Without it:
    /// all orders, and no tenant
    #[arg(long, value_name = "TEXT")]
    pub customer: Option<String>,
}

/// The location of a JWKS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// A URL.
    Url(http::Uri),
}

/// Asymmetric signature algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
#[allow(missing_docs)]
pub enum Algorithm {
    RS256,
    ES256,
    EdDSA,
}

/// Who may use reflection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Reflection {
    /// Authenticated callers, whatever their scopes.
    #[default]
    Callers,
    /// Everyone.
    Open,
    /// No one: reflection is not served.
    Off,
}

impl Algorithm {
    const ALL: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
}

impl Default for Access {
    /// No authentication.
    fn default() -> Access {
        Access {
            jwt_jwks: None,
            jwt_secret_file: None,
            api_keys: None,
            tls_clients: None,
            tls_client_scopes: Vec::new(),
            jwt_issuer: None,
            jwt_audience: Vec::new(),
            jwt_algorithms: Algorithm::ALL.to_vec(),
            jwt_scope_claim: "scope".to_owned(),
            jwt_customer_claim: "customer_id".to_owned(),
            jwt_jwks_refresh: REFRESH,
            jwt_jwks_ca: None,
            reflection: Reflection::default(),
            caller_in_flight: IN_FLIGHT,
            caller_rate: 0,
            auth_max_stale: MAX_STALE,
            insecure: false,
        }
    }
}

impl Access {
    /// Whether bearer tokens are accepted.
    pub fn tokens(&self) -> bool {
        self.jwt_jwks.is_some() || self.jwt_secret_file.is_some()
    }

    /// How long keys and lists stay in use while they cannot be reloaded; none: forever.
    pub(crate) fn max_stale(&self) -> Option<Duration> {
        (!self.auth_max_stale.is_zero()).then_some(self.auth_max_stale)
    }

    /// Whether callers have to authenticate.
    pub fn required(&self) -> bool {
        self.tokens()
            || self.api_keys.is_some()
            || self.tls_clients.is_some()
            || !self.tls_client_scopes.is_empty()
    }
}

/// Limits the interval: not so short that it floods the server, not so long that keys are outdated.
fn refresh(text: &str) -> Result<Duration, String> {
    between(seconds(text)?, Duration::from_secs(10), Duration::from_secs(86_400))
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        if !text.contains("://") {
            return Ok(Place::File(text.into()));
        }
        let url: http::Uri = text.parse().map_err(|error| format!("is not a URL: {error}"))?;
        let host = url.host().ok_or("has no host")?;
        match url.scheme_str() {
            _ if url.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
                Err("must not have a user or a password".to_owned())
            }
            Some("https") => Ok(Place::Url(url)),
            // Without TLS, whoever can modify the response on its way can sign tokens.
            Some("http") if ["localhost", "127.0.0.1", "[::1]"].contains(&host) => Ok(Place::Url(url)),
            Some("http") => Err("must be https, unless it is on this machine".to_owned()),
            _ => Err("must be https".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_a_file_or_by_https_and_plainly_from_this_machine_alone() {
        let place = |text: &str| text.parse::<Place>();
        assert_eq!(place("/etc/keys.json"), Ok(Place::File("/etc/keys.json".into())));
        for good in ["https://id.example.com/keys", "http://127.0.0.1:8000/keys", "http://[::1]/keys"] {
            assert!(matches!(place(good), Ok(Place::Url(_))), "{good}");
        }
        let bad = ["http://id.example.com/keys", "http://127.0.0.1.example.com/", "ftp://x/", "https://"];
        for bad in bad.into_iter().chain(["https://me:secret@id.example.com/"]) {
            assert!(place(bad).is_err(), "{bad}");
        }
    }
}
