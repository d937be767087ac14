//! Flags of the gRPC port's encryption.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// TLS of the gRPC port: on where there is a certificate.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub struct Tls {
    /// The server's certificate with its chain, PEM; read again when it changes
    #[arg(long, env = "GW_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key, PEM
    #[arg(long, env = "GW_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Certificates of the authority that signed the clients' certificates, PEM: clients are asked for one then
    #[arg(long, env = "GW_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away
    #[arg(long, env = "GW_TLS_CLIENT_AUTH", value_enum, default_value_t, value_name = "HOW")]
    pub tls_client_auth: ClientAuth,
}

/// What of a client that has no certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    /// It is turned away.
    #[default]
    Required,
    /// It may show a token or a key instead.
    Optional,
}
