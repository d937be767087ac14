//! Fetches one document over HTTP/1.1: https, or http on the loopback address. Limited in size; redirects are not
//! followed, so only the configured server is trusted. The caller applies a timeout.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::crypto::ring;

/// Maximum size of a document, in bytes.
const MOST: usize = 256 << 10;

/// The address of a document, and the trusted CAs.
pub(super) struct Fetch {
    host: String,
    port: u16,
    url: Uri,
    tls: Option<TlsConnector>,
}

impl Fetch {
    /// `ca` is a file with the CA certificates that verify the server; without it, the system's are used.
    pub(super) fn new(url: &Uri, ca: Option<&Path>) -> anyhow::Result<Fetch> {
        let secure = url.scheme_str() == Some("https");
        let host = url.host().context("the URL has no host")?;
        let tls = if secure { Some(connector(ca)?) } else { None };
        Ok(Fetch {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            url: url.clone(),
            tls,
        })
    }

    /// Fetches the document.
    pub(super) async fn get(&self) -> anyhow::Result<Bytes> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.context("cannot connect")?;
        match &self.tls {
            None => self.ask(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).context("the host is not a valid name")?;
                self.ask(tls.connect(name, stream).await.context("TLS")?).await
            }
        }
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> anyhow::Result<Bytes> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(HOST, self.url.authority().map_or("", |authority| authority.as_str()))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("order-gateway/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            bail!("the server answered {}", response.status());
        }
        match Limited::new(response.into_body(), MOST).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => bail!("the document is truncated, or larger than {MOST} bytes: {error}"),
        }
    }
}

fn connector(ca: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let pem = crate::reload::read(path)?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate?).with_context(|| format!("{}", path.display()))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() {
        bail!("there is no CA certificate to verify the JWKS server with (GW_JWT_JWKS_CA)");
    }
    let config = ClientConfig::builder_with_provider(ring())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers every request with this.
    async fn served(answer: Vec<u8>) -> anyhow::Result<Bytes> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys?a=b", listener.local_addr().unwrap()).parse().unwrap();
        let serve = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1_024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /keys?a=b HTTP/1.1\r\n"));
            // The client may have closed the connection early.
            let _ = stream.write_all(&answer).await;
        };
        let fetch = Fetch::new(&url, None).unwrap();
        tokio::join!(fetch.get(), serve).0
    }

    #[tokio::test]
    async fn a_document_comes_whole_or_not_at_all() {
        let ok = |length: usize, body: &[u8]| {
            [format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes(), body].concat()
        };
        assert_eq!(served(ok(2, b"{}")).await.unwrap(), "{}");
        assert_eq!(served(b"HTTP/1.0 200 OK\r\n\r\n{}".to_vec()).await.unwrap(), "{}");
        let bad = [
            ok(3, b"{}"),
            ok(MOST + 1, &vec![b' '; MOST + 1]),
            [b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), vec![b' '; MOST + 1]].concat(),
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n".to_vec(),
            b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
            b"nonsense".to_vec(),
            Vec::new(),
        ];
        for (number, bad) in bad.into_iter().enumerate() {
            assert!(served(bad).await.is_err(), "{number}");
        }
    }
}
