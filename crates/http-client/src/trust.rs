//! Which CA certificates verify a server, and the TLS handshake with it. Must not read a file, nor connect.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::connect::Stream;
use crate::error::{HttpError, HttpErrorKind};

/// The CA certificates that verify a server.
#[derive(Clone)]
pub struct Trust {
    tls: Option<Arc<ClientConfig>>,
    /// The variable that names the file with them, for errors.
    variable: &'static str,
}

/// Why there are no CA certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustError(String);

impl Trust {
    /// Trusts these CA certificates alone (PEM), or this machine's. `variable` is the name of the setting for a file with
    /// such certificates; errors name it.
    ///
    /// # Errors
    ///
    /// A certificate is invalid, or there is none.
    pub fn of(pem: Option<&[u8]>, variable: &'static str) -> Result<Trust, TrustError> {
        let mut roots = RootCertStore::empty();
        match pem {
            Some(pem) => {
                let invalid = |number: usize, why: &dyn fmt::Display| {
                    TrustError(format!("certificate {number} ({variable}) is invalid: {why}"))
                };
                for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem)) {
                    let certificate = certificate.map_err(|error| invalid(number, &error))?;
                    roots.add(certificate).map_err(|error| invalid(number, &error))?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            let place = if pem.is_some() { "the file contains none" } else { "this machine has none" };
            return Err(TrustError(format!(
                "there is no CA certificate to verify the server with: {place} ({variable} names a PEM file)"
            )));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TrustError(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust { tls: Some(Arc::new(config)), variable })
    }

    /// Trusts nobody: for http alone.
    pub fn plain() -> Trust {
        Trust { tls: None, variable: "" }
    }

    /// Whether https is possible.
    pub(crate) fn check(&self) -> Result<&Arc<ClientConfig>, HttpError> {
        let none = || HttpError::new(HttpErrorKind::Setting, "https needs CA certificates".to_owned());
        self.tls.as_ref().ok_or_else(none)
    }

    /// Performs the TLS handshake with a host; `peer` is its name in errors.
    pub(crate) async fn handshake<S: Stream>(
        &self,
        host: &str,
        peer: &str,
        stream: S,
    ) -> Result<TlsStream<S>, HttpError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            HttpError::new(HttpErrorKind::Setting, format!("{host:?} is not a valid name of a server"))
        })?;
        let connector = TlsConnector::from(self.check()?.clone());
        connector.connect(name, stream).await.map_err(|error| self.failed(peer, &error))
    }

    fn failed(&self, peer: &str, error: &io::Error) -> HttpError {
        use CertificateError::{Expired, ExpiredContext, NotValidForName, NotValidForNameContext};
        use CertificateError::{NotValidYet, NotValidYetContext};
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        let text = match cause {
            Some(rustls::Error::InvalidCertificate(why)) => {
                let remedy = match why {
                    NotValidForName | NotValidForNameContext { .. } => {
                        "the URL must use a name that is in the certificate".to_owned()
                    }
                    Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
                        "it has to be renewed, or this machine's clock is wrong".to_owned()
                    }
                    _ => format!("{} must name a file with the CA certificate that signed it", self.variable),
                };
                format!("the certificate of {peer} is not trusted ({error}): {remedy}")
            }
            _ => format!(
                "the TLS handshake with {peer} failed ({error}): the URL must begin with http:// if the port does not \
                 use TLS"
            ),
        };
        HttpError::new(HttpErrorKind::Tls, text)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TrustError {}
