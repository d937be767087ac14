//! The one implementation of cryptography in this process. A second one would be twice the code to trust.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// ring, for TLS.
pub(crate) fn ring() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
