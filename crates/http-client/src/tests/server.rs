//! Servers on this machine: one that gives each request the same answer, also by TLS; one that never ends; a proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// An authority that signs certificates.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// TLS with a certificate for this name.
    pub(super) fn acceptor(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> TlsAcceptor {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.0).unwrap().pem();
        let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What a server does with a connection.
enum Does {
    /// Gives a request this answer, and ends.
    Answer(Option<TlsAcceptor>, Vec<u8>),
    /// Begins an answer, and sends a byte of it at a time for ever.
    Drip,
    /// Passes it on to this address, whatever server it is for.
    Pass(SocketAddr),
}

/// A server. It ends with the test.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    requests: mpsc::UnboundedReceiver<String>,
    _serving: AbortOnDropHandle<()>,
}

impl Server {
    /// Gives each request this answer, and closes the connection.
    pub(super) async fn open(answer: impl Into<Vec<u8>>) -> Server {
        Server::that(Does::Answer(None, answer.into())).await
    }

    /// The same, by TLS.
    pub(super) async fn open_tls(acceptor: TlsAcceptor, answer: impl Into<Vec<u8>>) -> Server {
        Server::that(Does::Answer(Some(acceptor), answer.into())).await
    }

    /// A server whose answer never comes to an end.
    pub(super) async fn dripping() -> Server {
        Server::that(Does::Drip).await
    }

    /// A proxy that takes every server for the one at this address.
    pub(super) async fn proxy(to: SocketAddr) -> Server {
        Server::that(Does::Pass(to)).await
    }

    async fn that(does: Does) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (came, requests) = mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // The client may leave at any time.
                let _ = does.serve(stream, &came).await;
            }
        });
        Server { address, requests, _serving: AbortOnDropHandle::new(serving) }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The head of the next request that came.
    pub(super) async fn request(&mut self) -> String {
        let request = tokio::time::timeout(Duration::from_secs(30), self.requests.recv()).await;
        request.expect("a request in time").unwrap()
    }
}

impl Does {
    async fn serve(&self, mut stream: TcpStream, came: &mpsc::UnboundedSender<String>) -> io::Result<()> {
        let keep = |head: String| drop(came.send(head));
        match self {
            Does::Answer(None, answer) => {
                keep(head(&mut stream).await?);
                finish(&mut stream, answer).await
            }
            Does::Answer(Some(tls), answer) => {
                let mut stream = tls.accept(stream).await?;
                keep(head(&mut stream).await?);
                finish(&mut stream, answer).await
            }
            Does::Drip => {
                head(&mut stream).await?;
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                loop {
                    stream.write_all(b" ").await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Does::Pass(to) => {
                let request = head(&mut stream).await?;
                let mut far = TcpStream::connect(to).await?;
                if request.starts_with("CONNECT ") {
                    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                } else {
                    far.write_all(request.as_bytes()).await?;
                }
                keep(request);
                copy_bidirectional(&mut stream, &mut far).await.map(drop)
            }
        }
    }
}

/// Reads the head of a request. A record of TLS is recognized by its first byte, as servers do.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && !head.starts_with(&[0x16]) {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Writes an answer, and ends the connection once the client has ended it: a reset could overtake the answer.
async fn finish(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &[u8]) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    tokio::io::copy(stream, &mut tokio::io::sink()).await.map(drop)
}
