//! The only cryptography provider of this process. A second one would be more code to trust.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The ring provider, for TLS.
pub(crate) fn ring() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
