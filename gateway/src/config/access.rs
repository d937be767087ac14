//! Flags that say who may call. Secrets come from files: an argument is seen by every process of the machine.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use cli::units::{between, seconds};

/// Calls that one caller may have in hand.
const IN_FLIGHT: u32 = 512;
const REFRESH: Duration = Duration::from_secs(300);
const MAX_STALE: Duration = Duration::from_secs(600);

/// Who may call: anybody, unless one of the first six says how callers are known.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Access {
    /// Keys that bearer tokens (JWT) are signed with: a JWKS file, or a URL it is fetched from
    #[arg(long, env = "GW_JWT_JWKS", value_name = "FILE|URL")]
    pub jwt_jwks: Option<Place>,
    /// A secret that bearer tokens are signed with (HS256), at least 32 bytes
    #[arg(long, env = "GW_JWT_SECRET_FILE", value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,
    /// API keys: lines of `gateway keys new`; read again when it changes
    #[arg(long, env = "GW_API_KEYS", value_name = "FILE")]
    pub api_keys: Option<PathBuf>,
    /// Clients by a name in their certificates: lines of `NAME SCOPE,… [CUSTOMER]`; read again when it changes
    #[arg(long, env = "GW_TLS_CLIENTS", value_name = "FILE", requires = "tls_client_ca")]
    pub tls_clients: Option<PathBuf>,
    /// Scopes of clients with a good certificate that `--tls-clients` does not name
    #[arg(
        long,
        env = "GW_TLS_CLIENT_SCOPES",
        value_delimiter = ',',
        value_name = "SCOPE",
        requires = "tls_client_ca"
    )]
    pub tls_client_scopes: Vec<String>,
    /// Who has to have issued a token (`iss`)
    #[arg(long, env = "GW_JWT_ISSUER", value_name = "TEXT")]
    pub jwt_issuer: Option<String>,
    /// Whom a token has to be for (`aud`): one of these, separated by commas
    #[arg(long, env = "GW_JWT_AUDIENCE", value_delimiter = ',', value_name = "TEXT")]
    pub jwt_audience: Vec<String>,
    /// Algorithms that tokens signed with a key of the JWKS may use
    #[arg(
        long,
        env = "GW_JWT_ALGORITHMS",
        value_enum,
        value_delimiter = ',',
        default_values_t = Algorithm::ALL,
        value_name = "NAME"
    )]
    pub jwt_algorithms: Vec<Algorithm>,
    /// The claim with the scopes: a text with blanks between them, or a list
    #[arg(long, env = "GW_JWT_SCOPE_CLAIM", default_value = "scope", value_name = "NAME")]
    pub jwt_scope_claim: String,
    /// The claim with the customer whose orders alone the caller may see; without the claim: all orders
    #[arg(long, env = "GW_JWT_CUSTOMER_CLAIM", default_value = "customer_id", value_name = "NAME")]
    pub jwt_customer_claim: String,
    /// How often the JWKS is fetched
    #[arg(long, env = "GW_JWT_JWKS_REFRESH", default_value = "5m", value_parser = refresh, value_name = "DURATION")]
    pub jwt_jwks_refresh: Duration,
    /// Certificates of the authority that signed the JWKS server's, PEM; without it: those of this system
    #[arg(long, env = "GW_JWT_JWKS_CA", value_name = "FILE")]
    pub jwt_jwks_ca: Option<PathBuf>,
    /// Who may read the contract by gRPC reflection, where callers are known
    #[arg(long, env = "GW_REFLECTION", value_enum, default_value_t, value_name = "WHO")]
    pub reflection: Reflection,
    /// Calls that one caller may have in hand, watches included; one more is RESOURCE_EXHAUSTED
    #[arg(long, env = "GW_CALLER_IN_FLIGHT", default_value_t = IN_FLIGHT, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub caller_in_flight: u32,
    /// Calls that one caller may begin per second, for long; ten seconds' worth at once. 0: no limit
    #[arg(long, env = "GW_CALLER_RATE", default_value_t = 0, value_name = "N")]
    pub caller_rate: u32,
    /// How long what says who may call stays in force while it cannot be read; then it lets nobody in. 0: for
    /// ever, so that a key that was taken off a list stays good as long as the list cannot be read
    #[arg(long, env = "GW_AUTH_MAX_STALE", default_value = "10m", value_parser = seconds, value_name = "DURATION")]
    pub auth_max_stale: Duration,
    /// Serve other machines although there is no TLS, or callers are not known
    #[arg(long, env = "GW_INSECURE")]
    pub insecure: bool,
}

/// `gateway keys`.
#[derive(Debug, Clone, Args)]
pub struct Keys {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with API keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Make a key: the first line is the key, shown only now, the second is for the file GW_API_KEYS
    New(NewKey),
}

/// `gateway keys new`.
#[derive(Debug, Clone, Args)]
pub struct NewKey {
    /// Whose key it is: 1 to 64 of [A-Za-z0-9_-]
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What it is good for, separated by commas
    #[arg(long, value_delimiter = ',', required = true, value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// The customer whose orders alone it may see; without it: all orders
    #[arg(long, value_name = "TEXT")]
    pub customer: Option<String>,
}

/// Where a JWKS is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// On a server.
    Url(http::Uri),
}

/// Signature algorithms with a public key.
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
    /// Whoever is known, whatever the scopes.
    #[default]
    Callers,
    /// Anybody.
    Open,
    /// Nobody: it is not served.
    Off,
}

impl Algorithm {
    const ALL: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
}

impl Default for Access {
    /// Anybody may call.
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
    /// Whether bearer tokens are taken.
    pub fn tokens(&self) -> bool {
        self.jwt_jwks.is_some() || self.jwt_secret_file.is_some()
    }

    /// How long what says who may call stays in force while it cannot be read; none: for ever.
    pub(crate) fn max_stale(&self) -> Option<Duration> {
        (!self.auth_max_stale.is_zero()).then_some(self.auth_max_stale)
    }

    /// Whether callers have to be known.
    pub fn required(&self) -> bool {
        self.tokens()
            || self.api_keys.is_some()
            || self.tls_clients.is_some()
            || !self.tls_client_scopes.is_empty()
    }
}

/// Neither a server that is asked all the time nor keys of last week.
fn refresh(text: &str) -> Result<Duration, String> {
    between(seconds(text)?, Duration::from_secs(10), Duration::from_secs(86_400))
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        if !text.contains("://") {
            return Ok(Place::File(text.into()));
        }
        let url: http::Uri = text.parse().map_err(|error| format!("is no URL: {error}"))?;
        let host = url.host().ok_or("has no host")?;
        match url.scheme_str() {
            _ if url.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
                Err("must not have a user or a password".to_owned())
            }
            Some("https") => Ok(Place::Url(url)),
            // Whoever could change it on its way could sign tokens.
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
