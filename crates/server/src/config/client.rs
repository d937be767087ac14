//! Flags of the commands that call a gateway: TLS and credentials. Must not connect.

use std::path::PathBuf;

use nats::secret::Secret;

/// Environment variables for an API key and a token. There are no flags for them, because every user can read
/// arguments.
const API_KEY: &str = "GW_CLIENT_API_KEY";
const TOKEN: &str = "GW_CLIENT_TOKEN";

/// TLS and credentials for a gateway
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClientOptions {
    /// CA certificates that verify the gateway, PEM; default: the system's
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Client certificate, PEM
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM
    #[arg(id = "client_key", long = "key", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Expected name in the gateway's certificate, if it is not the host of the address
    #[arg(long, visible_alias = "servername", value_name = "NAME")]
    pub authority: Option<String>,
    /// Connect without TLS
    #[arg(long, conflicts_with_all = ["cacert", "cert", "authority"])]
    pub plaintext: bool,
    /// File with the API key; otherwise GW_CLIENT_API_KEY
    #[arg(long, value_name = "FILE", conflicts_with = "client_token_file")]
    pub api_key_file: Option<PathBuf>,
    /// File with the bearer token; otherwise GW_CLIENT_TOKEN
    #[arg(id = "client_token_file", long = "token-file", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// An API key from the environment. There is no flag.
    #[arg(skip = Secret::of_environment(API_KEY))]
    pub api_key: Option<Secret>,
    /// A bearer token from the environment. There is no flag.
    #[arg(skip = Secret::of_environment(TOKEN))]
    pub token: Option<Secret>,
}
