//! A system whose gateway has TLS, and its authorities.

use std::path::Path;
use std::sync::Arc;

use contract::orders::v1::ListOrdersRequest;
use contract::orders::v1::order_service_client::OrderServiceClient;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use server::config::tls::{ClientAuth, Tls};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::harness::pki::{Authority, CertAndKey, endpoint};
use crate::harness::system::System;

/// A gateway with TLS, and its files.
pub struct TlsSystem {
    pub system: System,
    pub authority: Authority,
    pub clients: Authority,
    pub folder: TempDir,
    pub port: u16,
}

impl TlsSystem {
    /// With this mode of client authentication, if any, and other changes.
    pub async fn start(
        auth: Option<ClientAuth>,
        change: impl FnOnce(&mut gateway::config::Serve, &Path),
    ) -> TlsSystem {
        let (authority, clients) = (Authority::new(), Authority::new());
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = authority.server().write(folder.path());
        let ca = folder.path().join("clients.crt");
        std::fs::write(&ca, clients.pem()).unwrap();
        let tls = Tls {
            tls_cert: Some(cert),
            tls_key: Some(key),
            tls_client_ca: auth.map(|_| ca),
            tls_client_auth: auth.unwrap_or_default(),
        };
        let builder = System::builder().each_gateway(|config| {
            config.tls = tls;
            change(config, folder.path());
        });
        let system = builder.start().await;
        let port = system.gateways[0].grpc_addr().port();
        TlsSystem { system, authority, clients, folder, port }
    }

    pub async fn connect(&self, client: Option<&CertAndKey>) -> Result<Channel, tonic::transport::Error> {
        endpoint(self.port, &self.authority, client).connect().await
    }

    /// The server's certificate as shown to a client with these protocols (ALPN); `None` if the client is rejected.
    pub async fn shown(&self, protocols: &[&str]) -> Option<CertificateDer<'static>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream =
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        let shown = stream.get_ref().1.peer_certificates()?.first()?.clone();
        // A server that accepts the client sends SETTINGS by itself.
        let mut settings = [0; 9];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut settings).await.ok()?;
        Some(shown)
    }
}

pub async fn list(channel: Channel) -> Result<(), tonic::Status> {
    OrderServiceClient::new(channel).list_orders(ListOrdersRequest::default()).await.map(drop)
}
