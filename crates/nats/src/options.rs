//! How to reach NATS: flags and environment variables, with the names that the nats CLI uses.

use std::path::PathBuf;
use std::time::Duration;

use crate::clock::WallClock;
use crate::monitor::Monitor;
use crate::secret::Secret;

/// The time limit for connecting; a frozen server accepts a connection and stays silent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The environment variables that hold secrets; they have no flags.
pub(crate) const PASSWORD: &str = "NATS_PASSWORD";
pub(crate) const TOKEN: &str = "NATS_TOKEN";
/// The default inbox prefix.
const INBOX: &str = "_INBOX";

/// Where NATS is, and our credentials for it.
#[derive(Clone, clap::Args)]
pub struct Options {
    /// NATS server URLs, separated by commas: nats:// or tls://, optionally with `user:password@` or `token@`,
    /// percent-encoded
    #[arg(long = "nats-url", env = "NATS_URL", default_value = "nats://127.0.0.1:4222", value_name = "URL")]
    pub url: String,
    /// Credentials file (JWT and seed)
    #[arg(long = "nats-creds", env = "NATS_CREDS", value_name = "FILE")]
    pub creds: Option<PathBuf>,
    /// File with the seed of our nkey
    #[arg(long = "nats-nkey", env = "NATS_NKEY", value_name = "FILE")]
    pub nkey: Option<PathBuf>,
    /// User name; its password is in a file or in NATS_PASSWORD
    #[arg(long = "nats-user", env = "NATS_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// The user's password. It has no flag, because every user of a machine can read arguments.
    #[arg(skip = Secret::of_environment(PASSWORD))]
    pub password: Option<Secret>,
    /// File with the user's password
    #[arg(long = "nats-password-file", env = "GW_NATS_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A token.
    #[arg(skip = Secret::of_environment(TOKEN))]
    pub token: Option<Secret>,
    /// File with a token, if it is not in NATS_TOKEN
    #[arg(long = "nats-token-file", env = "GW_NATS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Prefix of our reply inboxes; each role's user may subscribe to its own prefix only
    #[arg(long = "nats-inbox-prefix", env = "GW_NATS_INBOX_PREFIX", default_value = INBOX, value_name = "SUBJECT")]
    pub inbox_prefix: String,
    /// CA certificates that the servers' certificates are verified with, PEM
    #[arg(long = "nats-ca", env = "NATS_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate, PEM
    #[arg(long = "nats-cert", env = "NATS_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM
    #[arg(id = "key", long = "nats-key", env = "NATS_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Monitoring URLs of the servers, http:// or https://, separated by commas: asked at start whether the servers sync
    /// each write. NATS_CA verifies https, without it the system's CA certificates
    #[arg(long, env = "GW_NATS_MONITOR_URL", value_name = "URL")]
    pub nats_monitor_url: Option<String>,
    /// Time limit for connecting to NATS, at start and when reconnecting
    #[arg(long, alias = "nats-connect-timeout-ms", env = "GW_NATS_CONNECT_TIMEOUT", default_value = "2s", value_parser = patience, value_name = "DURATION")]
    pub nats_connect_timeout: Duration,
    /// This machine's time of day.
    #[arg(skip)]
    pub wall: WallClock,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("url", &self.shown()).finish_non_exhaustive()
    }
}

/// Why the first connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A credentials file cannot be used.
    #[error("the NATS credentials in {} ({variable}) cannot be used: {why}", path.display())]
    Credentials {
        /// The variable that names the file.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A certificate or key file cannot be used.
    #[error("{} ({variable}) cannot be used: {why}", path.display())]
    Certificate {
        /// The variable that names the file.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// Two authentication methods are set.
    #[error("{one} and {other} both authenticate us to NATS; set only one of them")]
    Ambiguous {
        /// One variable.
        one: &'static str,
        /// The other variable.
        other: &'static str,
    },
    /// An authentication method is incomplete.
    #[error("{is} needs {lacks} as well")]
    Incomplete {
        /// What there is.
        is: &'static str,
        /// What is missing.
        lacks: &'static str,
    },
    /// NATS_URL is invalid.
    #[error("--nats-url (NATS_URL): {0}")]
    Url(String),
    /// The inbox prefix is invalid.
    #[error(
        "--nats-inbox-prefix (GW_NATS_INBOX_PREFIX) is {0:?}; it must be tokens of [A-Za-z0-9_-] separated by dots"
    )]
    Prefix(String),
    /// A server rejected our credentials.
    #[error(
        "NATS at {url} rejected our credentials (authorization violation); check the user and its password or key, or \
         set one of NATS_CREDS, NATS_NKEY, NATS_USER (with GW_NATS_PASSWORD_FILE), NATS_TOKEN and a user in NATS_URL"
    )]
    Refused {
        /// The servers' URLs.
        url: String,
    },
    /// A server's certificate is not signed by a CA that we trust, or is for another name.
    #[error(
        "the certificate of NATS at {url} is not trusted: NATS_CA must name the file of the CA that signed it, and \
         NATS_URL must use the server name in the certificate"
    )]
    Untrusted {
        /// The servers' URLs.
        url: String,
        /// The cause.
        source: async_nats::ConnectError,
    },
    /// No server answered.
    #[error("cannot connect to NATS at {url}; is a nats-server running there? (NATS_URL says where)")]
    Unreachable {
        /// The servers' URLs.
        url: String,
        /// The cause.
        source: async_nats::ConnectError,
    },
    /// Subscribing to the reply inbox failed.
    #[error("cannot subscribe to the reply inbox: {0}")]
    Inbox(#[from] async_nats::SubscribeError),
}

impl Options {
    /// Options for a server at this URL, without credentials.
    pub fn at(url: impl Into<String>) -> Options {
        Options {
            url: url.into(),
            creds: None,
            nkey: None,
            user: None,
            password: None,
            password_file: None,
            token: None,
            token_file: None,
            inbox_prefix: INBOX.to_owned(),
            ca: None,
            cert: None,
            key: None,
            nats_monitor_url: None,
            nats_connect_timeout: CONNECT_TIMEOUT,
            wall: WallClock::default(),
        }
    }

    /// The servers' monitoring ports, if there are URLs of them.
    pub fn monitor(&self) -> Option<Monitor> {
        self.nats_monitor_url.as_deref().map(|urls| Monitor::of(urls, self.ca.clone()))
    }

    /// The servers' URLs without the secrets that they may contain.
    pub fn shown(&self) -> String {
        let whole = |url: &str| if url.contains("://") { url.to_owned() } else { format!("nats://{url}") };
        let urls = self.url.split(',').map(|url| cli::url::shown(&whole(url.trim())));
        urls.collect::<Vec<_>>().join(",")
    }
}

/// Parses the time limit for connecting, which must not be zero.
fn patience(text: &str) -> Result<Duration, String> {
    cli::units::between(cli::units::millis(text)?, Duration::from_millis(10), Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_their_secrets() {
        let options = Options::at("nats://ann:secret@one:4222, tls://token@two,three");
        assert_eq!(options.shown(), "nats://one:4222,tls://two,nats://three");
        assert!(!format!("{options:?}").contains("secret"));
    }
}
