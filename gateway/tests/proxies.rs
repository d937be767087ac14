//! What a gateway fetches where the environment names proxies: keys by https, monitoring pages by http.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::GATEWAY;
use crate::harness::command::{program, run};
use crate::harness::pki::{Authority, CertAndKey};
use crate::harness::process::{Process, until};
use crate::system::System;

const JWKS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Reads the head of a request.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A server with this certificate that answers each request with the keys.
async fn keys(certificate: CertAndKey) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_slice(certificate.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = head(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{JWKS}", JWKS.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

/// A proxy that takes every tunnel to one address, every plain request to another, and keeps their first lines.
async fn proxy(tunnels: SocketAddr, plain: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let seen = asked.clone();
    let pass = async move |mut near: TcpStream| {
        let request = head(&mut near).await?;
        seen.lock().unwrap().push(request.lines().next().unwrap_or_default().to_owned());
        let is_tunnel = request.starts_with("CONNECT ");
        let mut far = TcpStream::connect(if is_tunnel { tunnels } else { plain }).await?;
        match is_tunnel {
            true => near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?,
            false => far.write_all(request.as_bytes()).await?,
        }
        copy_bidirectional(&mut near, &mut far).await
    };
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let _ = pass(near).await;
        }
    });
    (address, asked)
}

#[test]
fn keys_and_monitoring_pages_come_by_the_proxies_of_the_environment() {
    let (system, authority) = (System::bare(), Authority::new());
    let monitor = SocketAddr::from(([127, 0, 0, 1], system.nats.monitor_port()));
    let (address, asked) = system.block_on(async {
        let keys = keys(authority.sign(&["id.example.com"], |_| {})).await;
        proxy(keys, monitor).await
    });
    let ca = system.file("ca.pem", &authority.pem());
    let mut command = Command::new(GATEWAY);
    command.env_clear().args(["serve", "--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0"]);
    command.args(["--jwt-issuer=https://id.example.com/", "--jwt-audience=orders"]);
    command.args(["--nats-url", &system.nats.url(), "--nats-monitor-url=http://nats.example.com:8222"]);
    command.arg("--jwt-jwks=https://id.example.com/keys").arg("--jwt-jwks-ca").arg(ca);
    command.env("HTTPS_PROXY", format!("http://{address}")).env("http_proxy", format!("http://{address}"));
    let gateway = Process::start(&mut command, system.path("log"));
    gateway.line("JWKS fetched");
    let warned = ["http://nats.example.com:8222 acknowledges writes before they are on its disk"];
    until("the server is named that does not sync", || !gateway.warnings(&warned).is_empty());
    let asked = asked.lock().unwrap().clone();
    for line in ["CONNECT id.example.com:443 HTTP/1.1", "GET http://nats.example.com:8222/jsz HTTP/1.1"] {
        assert!(asked.iter().any(|asked| asked == line), "{line:?} is not among {asked:?}");
    }
}

#[test]
fn a_proxy_that_cannot_be_used_for_the_keys_is_listed_by_config_check_without_its_password() {
    let mut command = program(GATEWAY, &["config", "check", "--jwt-issuer=a", "--jwt-audience=b"]);
    command.env("GW_JWT_JWKS", "https://id.example.com/keys");
    command.env("HTTPS_PROXY", "socks5://ann:hush@proxy:1080");
    let checked = run(&mut command);
    assert!(checked.code == Some(1) && checked.err.contains("HTTPS_PROXY is not a proxy"), "{checked:?}");
    assert!(!format!("{checked:?}").contains("hush"), "{checked:?}");
    assert_eq!(run(command.env("NO_PROXY", "example.com")).code, Some(0));
}
