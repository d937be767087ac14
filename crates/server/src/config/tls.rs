//! Flags for TLS on the gRPC port.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// TLS of the gRPC port: enabled by a certificate.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub struct Tls {
    /// The server certificate with its chain, PEM; reloaded when it changes
    #[arg(long, env = "GW_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the server certificate, PEM
    #[arg(long, env = "GW_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// CA certificates that verify client certificates, PEM; turns client authentication on
    #[arg(long, env = "GW_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Whether a client certificate is required
    #[arg(long, env = "GW_TLS_CLIENT_AUTH", value_enum, default_value_t, value_name = "HOW")]
    pub tls_client_auth: ClientAuth,
}

/// What happens to a client without a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    /// The TLS handshake fails.
    #[default]
    Required,
    /// It may present a bearer token or an API key instead.
    Optional,
}
