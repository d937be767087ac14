//! The servers' monitoring ports, over http or https: one page at a time, as JSON. Must not depend on what is on a page,
//! and no call may depend on a port.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_client::{Client, HttpError, HttpErrorKind, Limits, Trust};
use serde::de::DeserializeOwned;

/// The maximum size of a page, which has a few kilobytes.
const MOST: usize = 1 << 20;
/// The variable that names the CA certificates.
const CA: &str = "NATS_CA";

/// The monitoring ports of the servers. Their URLs may contain secrets by mistake, and are shown without them.
#[derive(Clone)]
pub struct Monitor {
    urls: Vec<String>,
    /// The file with the CA certificates that verify https; without it, this machine's are used.
    ca: Option<PathBuf>,
    /// This machine's, once they were needed.
    native: Arc<OnceLock<Trust>>,
}

/// Why a page cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// The server cannot be asked, or did not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It is asked for in the wrong way, or the answer is another.
    #[error("{0}")]
    Other(String),
}

impl Monitor {
    /// The ports with these URLs, separated by commas.
    pub(crate) fn of(urls: &str, ca: Option<PathBuf>) -> Monitor {
        let urls = urls.split(',').map(|url| url.trim().to_owned()).collect();
        Monitor { urls, ca, native: Arc::default() }
    }

    /// The URLs.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Reads a page of the server with this URL within a time limit.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        url: &str,
        page: &str,
        limit: Duration,
    ) -> Result<T, PageError> {
        let whole: Option<Uri> = format!("{}/{page}", url.trim_end_matches('/')).parse().ok();
        let whole = whole.filter(|url| matches!(url.scheme_str(), Some("http" | "https")));
        let whole =
            whole.ok_or_else(|| PageError::Other("it is not an http:// or https:// URL".to_owned()))?;
        if cli::url::user_information(url).is_some() {
            let text = "GW_NATS_MONITOR_URL must not contain a user or a password: monitoring ports use none";
            return Err(PageError::Other(text.to_owned()));
        }
        let trust = if whole.scheme_str() == Some("https") { self.trust()? } else { Trust::plain() };
        let client = Client::new(trust, Limits { whole: limit, body: MOST });
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = whole;
        let body = client.fetch(request).await?;
        serde_json::from_slice(&body)
            .map_err(|_| PageError::Other(format!("the answer is not a nats-server's /{page}")))
    }

    /// The file is read each time, as connections to NATS do: a CA may be replaced.
    fn trust(&self) -> Result<Trust, PageError> {
        let cannot = |why: String| PageError::Other(format!("the CA certificates cannot be used: {why}"));
        let Some(path) = &self.ca else {
            if let Some(native) = self.native.get() {
                return Ok(native.clone());
            }
            let native = Trust::of(None, CA).map_err(|error| cannot(error.to_string()))?;
            return Ok(self.native.get_or_init(|| native).clone());
        };
        let pem =
            std::fs::read(path).map_err(|error| cannot(format!("{} ({CA}): {error}", path.display())))?;
        Trust::of(Some(&pem), CA).map_err(|error| cannot(format!("{}: {error}", path.display())))
    }
}

impl PageError {
    /// The kind of an HTTP failure.
    pub(crate) fn kind(&self) -> Option<HttpErrorKind> {
        match self {
            PageError::Http(error) => Some(error.kind()),
            PageError::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use local_nats::Server;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use serde_json::Value;
    use tokio::io::copy_bidirectional;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Serves a port with TLS, by a certificate of this authority for `localhost`; returns the URL.
    async fn with_tls(port: u16, authority: &CertifiedIssuer<'static, KeyPair>) -> String {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, authority).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(cert.pem().as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust the certificate leaves.
                let Ok(mut near) = acceptor.accept(stream).await else { continue };
                let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            }
        });
        url
    }

    #[tokio::test]
    async fn a_monitoring_port_with_tls_is_read_by_the_ca_of_the_file_as_it_is_now() {
        let server = tokio::task::spawn_blocking(Server::start).await.unwrap().unwrap();
        let (ours, other) = (authority(), authority());
        let url = with_tls(server.monitor_port(), &ours).await;
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        let monitor = Monitor::of(&url, Some(ca.clone()));
        std::fs::write(&ca, other.pem()).unwrap();
        let refused = monitor.get::<Value>(&url, "varz", LIMIT).await.unwrap_err().to_string();
        assert!(refused.contains("not trusted") && refused.contains("NATS_CA"), "{refused}");
        std::fs::write(&ca, ours.pem()).unwrap();
        let varz = monitor.get::<Value>(&url, "varz", LIMIT).await.unwrap();
        assert!(varz["server_name"].is_string(), "{varz}");
        std::fs::remove_file(&ca).unwrap();
        let gone = monitor.get::<Value>(&url, "varz", LIMIT).await.unwrap_err().to_string();
        assert!(gone.contains("ca.pem") && gone.contains("NATS_CA"), "{gone}");
    }
}
