//! Client options for calls to a gateway: address, TLS and credentials, with errors that say what to change. Used by
//! the commands that call a gateway: `gateway healthcheck`, and those of loadtest. Must not be used for serving.

pub mod told;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use nats::credentials::warn_if_exposed;
use nats::secret::Secret;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

pub use crate::config::client::ClientOptions;

/// Timeout of connecting, including TLS.
const CONNECT: Duration = Duration::from_secs(3);

/// A channel that sends the credentials with each call.
pub type Connection = InterceptedService<Channel, Credentials>;

/// The credentials that are sent with each call.
#[derive(Clone, Default)]
pub struct Credentials {
    header: Option<(&'static str, MetadataValue<Ascii>)>,
}

/// The endpoint of a gateway, and the credentials for it.
#[derive(Clone)]
pub struct Target {
    /// The URI, as given or completed.
    pub uri: Uri,
    endpoint: Endpoint,
    credentials: Credentials,
    /// Whether any credentials are sent, including a client certificate.
    known: bool,
}

impl ClientOptions {
    /// The gateway at `address`: `https://HOST:PORT`, `http://HOST:PORT`, or `HOST:PORT`, which uses TLS if any TLS
    /// flag is given.
    ///
    /// # Errors
    /// If the address is invalid, the flags contradict it, or a file cannot be used.
    pub fn target(&self, address: &str) -> anyhow::Result<Target> {
        let uri = self.uri(address)?;
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let credentials = self.credentials()?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if credentials.header.is_some() && !tls && !here {
            cli::note!(
                "warning: credentials are sent to {uri} without TLS: anyone on the network path can read them"
            );
        }
        let mut endpoint = Endpoint::from(uri.clone()).connect_timeout(CONNECT).tcp_nodelay(true);
        if tls {
            endpoint = endpoint.tls_config(self.tls()?).context("cannot set up TLS with these files")?;
            if let Some(name) = &self.authority {
                let origin = format!("https://{name}").parse();
                endpoint = endpoint
                    .origin(origin.with_context(|| format!("--authority {name} is not a valid name"))?);
            }
        }
        let known = credentials.header.is_some() || self.cert.is_some();
        Ok(Target { uri, endpoint, credentials, known })
    }

    fn uri(&self, address: &str) -> anyhow::Result<Uri> {
        let tls = [self.cacert.is_some(), self.cert.is_some(), self.authority.is_some()].contains(&true);
        let scheme = if tls { "https" } else { "http" };
        let whole =
            if address.contains("://") { address.to_owned() } else { format!("{scheme}://{address}") };
        let shown = cli::url::shown(&whole);
        let uri: Uri =
            whole.parse().with_context(|| format!("{shown} is not a valid address of a gateway"))?;
        match uri.scheme_str() {
            Some("http") if tls => bail!(
                "{shown} does not use TLS, but --cacert, --cert and --authority need it: write https://"
            ),
            Some("https") if self.plaintext => {
                bail!("{shown} uses TLS, but --plaintext turns it off: give one of them")
            }
            Some("http" | "https") => {}
            _ => bail!(
                "{shown} has to begin with https:// or http://, as in https://gateway.example.com:50051"
            ),
        }
        let authority = uri.authority().map_or("", Authority::as_str);
        ensure!(
            !authority.contains('@'),
            "{shown} contains a user, which gateways do not support: use --api-key-file or --token-file"
        );
        ensure!(uri.port().is_some(), "{shown} has no port, as in {}:50051", shown.trim_end_matches('/'));
        Ok(uri)
    }

    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let mut tls = ClientTlsConfig::new().timeout(CONNECT);
        tls = match &self.cacert {
            Some(path) => {
                let pem = read(path, "--cacert")?;
                let count = CertificateDer::pem_slice_iter(&pem).filter(Result::is_ok).count();
                ensure!(count > 0, "--cacert {} contains no PEM certificate", path.display());
                tls.ca_certificate(Certificate::from_pem(pem))
            }
            None => tls.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            warn_if_exposed(key);
            tls = tls.identity(Identity::from_pem(read(cert, "--cert")?, read(key, "--key")?));
        }
        Ok(match &self.authority {
            Some(name) => tls.domain_name(name.split(':').next().unwrap_or(name)),
            None => tls,
        })
    }

    fn credentials(&self) -> anyhow::Result<Credentials> {
        let file = |path: &Option<PathBuf>, flag| -> anyhow::Result<Option<Secret>> {
            let Some(path) = path else { return Ok(None) };
            warn_if_exposed(path);
            let text = String::from_utf8(read(path, flag)?).ok();
            let first =
                text.as_deref().and_then(|text| text.lines().map(str::trim).find(|line| !line.is_empty()));
            let first = first.with_context(|| format!("{flag} {} is empty", path.display()))?;
            Ok(Some(first.to_owned().into()))
        };
        let key = file(&self.api_key_file, "--api-key-file")?.or_else(|| self.api_key.clone());
        let token = file(&self.token_file, "--token-file")?.or_else(|| self.token.clone());
        let header = match (key, token) {
            (Some(_), Some(_)) => bail!("both an API key and a token are given: give one of them"),
            (Some(key), None) => Some(("x-api-key", key.text())),
            (None, Some(token)) => Some(("authorization", format!("Bearer {}", token.text()))),
            (None, None) => None,
        };
        let Some((name, text)) = header else { return Ok(Credentials::default()) };
        let value = HeaderValue::from_str(&text).ok().and_then(|value| value.to_str().ok()?.parse().ok());
        let mut value: MetadataValue<Ascii> =
            value.with_context(|| format!("the value of {name} is not visible ASCII"))?;
        value.set_sensitive(true);
        Ok(Credentials { header: Some((name, value)) })
    }
}

impl Target {
    /// Changes settings of the endpoint.
    #[must_use]
    pub fn tuned(mut self, tune: impl FnOnce(Endpoint) -> Endpoint) -> Target {
        self.endpoint = tune(self.endpoint);
        self
    }

    /// A connection that is opened on first use, and reopened when it is lost.
    pub fn lazy(&self) -> Connection {
        InterceptedService::new(self.endpoint.connect_lazy(), self.credentials.clone())
    }

    /// Connects now.
    ///
    /// # Errors
    /// If the connection fails; the error says what to change.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let channel = self.endpoint.connect().await;
        let channel = channel.map_err(|error| told::unreachable(&self.uri, &error))?;
        Ok(InterceptedService::new(channel, self.credentials.clone()))
    }

    /// The error of a failed call, which says what to change.
    pub fn told(&self, status: &Status) -> anyhow::Error {
        told::failed(&self.uri, status, self.known)
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some((name, value)) = &self.header {
            request.metadata_mut().insert(*name, value.clone());
        }
        Ok(request)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Credentials").field(&self.header.as_ref().map(|(name, _)| *name)).finish()
    }
}

fn read(path: &Path, flag: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{flag} {} cannot be read", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(access: &ClientOptions, address: &str) -> Result<String, String> {
        access.uri(address).map(|uri| uri.to_string()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn an_address_is_a_url_or_a_host_and_port_with_the_scheme_of_the_flags() {
        let (bare, tls) = (
            ClientOptions::default(),
            ClientOptions { authority: Some("gw".to_owned()), ..ClientOptions::default() },
        );
        assert_eq!(uri(&bare, "[::1]:50051").unwrap(), "http://[::1]:50051/");
        assert_eq!(uri(&tls, "gw:50051").unwrap(), "https://gw:50051/");
        assert_eq!(uri(&bare, "https://gw:50051").unwrap(), "https://gw:50051/");
        let plain = ClientOptions { plaintext: true, ..ClientOptions::default() };
        for (access, address, word) in [
            (&tls, "http://gw:1", "write https://"),
            (&plain, "https://gw:1", "--plaintext"),
            (&bare, "nats://gw:1", "has to begin with"),
            (&bare, "https://gw", "has no port"),
            (&bare, "https://ann:hush@gw:1", "--api-key-file"),
            (&bare, "a b:1", "is not a valid address"),
        ] {
            let refused = uri(access, address).unwrap_err();
            assert!(refused.contains(word) && !refused.contains("hush"), "{address}: {refused}");
        }
    }

    #[test]
    fn a_key_is_the_first_line_of_its_file_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "\n till.abc \n").unwrap();
        let credentials = ClientOptions { api_key_file: Some(path.clone()), ..ClientOptions::default() }
            .credentials()
            .unwrap();
        let (name, value) = credentials.header.clone().unwrap();
        assert_eq!((name, value.to_str().unwrap()), ("x-api-key", "till.abc"));
        assert!(!format!("{credentials:?}{value:?}").contains("till"));
        std::fs::write(&path, "\n").unwrap();
        let empty = ClientOptions { token_file: Some(path), ..ClientOptions::default() }
            .credentials()
            .unwrap_err()
            .to_string();
        assert!(empty.contains("--token-file") && empty.contains("is empty"), "{empty}");
    }
}
