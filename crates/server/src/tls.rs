//! TLS of the gRPC port: the server certificate and the client CA certificates, reloaded when the files change. Calls
//! in flight keep their connection. Must not know who a client is, only what its certificate contains.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio::sync::watch;
use tokio::time::sleep;

use super::expiry::Expiry;
use crate::auth::{Authorities, PeerIdentity, Trust, Upkeep, unix};
use crate::config::tls::{ClientAuth, Tls};
use crate::crypto::ring;
use crate::fresh::Kept;
use crate::reload::{Contents, Made, Reload, text};

/// The ALPN protocol of gRPC.
const HTTP2: &[u8] = b"h2";
/// The start of a certificate in a PEM file.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// The current TLS configuration of the port.
pub(crate) struct Current {
    /// The configuration for new handshakes.
    pub(crate) configs: watch::Receiver<Arc<ServerConfig>>,
    /// The trusted client CAs, if clients are asked for a certificate.
    pub(crate) trust: Option<Trust>,
    /// The expiry of the certificates in use.
    pub(crate) expiry: Expiry,
}

/// Reads the files for the first time. None if TLS is not configured.
pub(crate) fn open(
    config: &Tls,
    stale: Option<Duration>,
    upkeep: &mut Upkeep,
) -> anyhow::Result<Option<Current>> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        if config.tls_cert.is_some() || config.tls_key.is_some() || config.tls_client_ca.is_some() {
            bail!("TLS needs a certificate and its key (GW_TLS_CERT, GW_TLS_KEY)");
        }
        return Ok(None);
    };
    let identity = Reload::open("TLS (GW_TLS_CERT, GW_TLS_KEY)", vec![cert.clone(), key.clone()], identity)?;
    let roots = match &config.tls_client_ca {
        None => None,
        Some(path) => {
            let roots: Reload<Vec<_>> =
                Reload::open("client CA certificates (GW_TLS_CLIENT_CA)", vec![path.clone()], roots)?;
            Some(upkeep.guard(roots.within("tls_client_ca", stale)))
        }
    };
    let required = config.tls_client_auth == ClientAuth::Required;
    let certificates = roots.as_ref().map(Kept::latest);
    let first = certificates.as_ref().map(|latest| latest.borrow().clone()).unwrap_or_default();
    let first = Authorities::of(&first, required, unix()).context("client CA certificates")?;
    if roots.is_some() && first.verifier().is_none() {
        bail!("every CA certificate in GW_TLS_CLIENT_CA has expired, or there is none");
    }
    let identity = upkeep.keep(identity);
    let config = server_config(&identity.borrow(), roots.is_some().then_some(&first))?;
    let (configs, authorities) = (watch::Sender::new(Arc::new(config)), watch::Sender::new(Arc::new(first)));
    let trust = roots.as_ref().map(|roots| Trust::new(authorities.subscribe(), roots.fresh().clone()));
    let expiry = Expiry { identity: Some(identity.clone()), authorities: certificates.clone() };
    let current = Current { configs: configs.subscribe(), trust, expiry };
    let builder = ConfigBuilder { identity, certificates, required, configs, authorities };
    upkeep.also("TLS configuration", builder.run());
    Ok(Some(current))
}

/// Builds one configuration from files that change independently: a certificate and a key that do not match must not
/// keep a removed CA in force.
struct ConfigBuilder {
    identity: watch::Receiver<Arc<CertifiedKey>>,
    certificates: Option<watch::Receiver<Arc<Vec<CertificateDer<'static>>>>>,
    required: bool,
    configs: watch::Sender<Arc<ServerConfig>>,
    authorities: watch::Sender<Arc<Authorities>>,
}

impl ConfigBuilder {
    async fn run(mut self) {
        loop {
            let lasts = self.authorities.borrow().lasts();
            let certificates = async {
                match &mut self.certificates {
                    Some(certificates) => certificates.changed().await,
                    None => std::future::pending().await,
                }
            };
            let news = tokio::select! {
                changed = self.identity.changed() => changed.is_ok(),
                changed = certificates => changed.is_ok(),
                () = sleep(lasts.max(Duration::from_millis(100))) => self.authorities.borrow().outdated(),
            };
            if news && let Err(error) = self.weave() {
                tracing::error!(
                    error = format!("{error:#}"),
                    "cannot update TLS: the previous configuration stays in use"
                );
            }
        }
    }

    fn weave(&mut self) -> anyhow::Result<()> {
        let latest = self.certificates.as_mut().map(|latest| latest.borrow_and_update().clone());
        let authorities = Authorities::of(&latest.clone().unwrap_or_default(), self.required, unix())?;
        let identity = self.identity.borrow_and_update().clone();
        let config = server_config(&identity, latest.is_some().then_some(&authorities));
        // The configuration is published before the CA version that refers to it. If no CA is left, handshakes continue
        // with the previous configuration, but no client certificate is trusted.
        config.map(|config| drop(self.configs.send_replace(Arc::new(config)))).unwrap_or_else(|error| {
            tracing::warn!(%error, "all client certificates are rejected");
        });
        self.authorities.send_replace(Arc::new(authorities));
        Ok(())
    }
}

/// The server certificate and its key, which have to match.
fn identity(contents: &[Contents]) -> anyhow::Result<CertifiedKey> {
    let [cert, key] = contents else { bail!("a file is missing: the certificate or its key") };
    let chain = certificates(cert).context("the certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| anyhow::anyhow!("the key file contains no private key"))?;
    // This fails if the key does not match the certificate.
    Ok(CertifiedKey::from_der(chain, key, &ring())?)
}

fn server_config(
    identity: &Arc<CertifiedKey>,
    authorities: Option<&Authorities>,
) -> anyhow::Result<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(ring()).with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => builder
            .with_client_cert_verifier(authorities.verifier().context("no valid CA certificate is left")?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.clone())));
    config.alpn_protocols = vec![HTTP2.to_vec()];
    if authorities.is_some() {
        // A resumed session would skip the check of a client certificate that may have expired meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// The CA certificates of a file, each parsed independently: an invalid one does not affect the others.
fn roots(contents: &[Contents]) -> anyhow::Result<Made<Vec<CertificateDer<'static>>>> {
    let text = String::from_utf8_lossy(text(contents)?);
    let (mut good, mut faults) = (Vec::new(), Vec::new());
    for (number, block) in text.split(BEGIN).skip(1).enumerate() {
        let certificate = CertificateDer::from_pem_slice(format!("{BEGIN}{block}").as_bytes());
        match certificate.ok().filter(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok()) {
            Some(certificate) => good.push(certificate),
            None => faults.push(format!("certificate {} cannot be read", number + 1)),
        }
    }
    let count = good.len();
    Ok(Made::of_lines(good, count, faults))
}

fn certificates(pem: &Contents) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| anyhow::anyhow!("the file is not PEM: {error:?}"))?;
    if found.is_empty() {
        bail!("the file contains no certificate");
    }
    Ok(found)
}

/// Whether HTTP/2 was negotiated. Without ALPN, the client's protocol is unknown.
pub(super) fn speaks(connection: &ServerConnection) -> bool {
    connection.alpn_protocol() == Some(HTTP2)
}

/// The client's certificate chain, if it presented one.
pub(super) fn chain(connection: &ServerConnection) -> Option<Vec<CertificateDer<'static>>> {
    Some(connection.peer_certificates()?.iter().map(|certificate| certificate.clone().into_owned()).collect())
}

/// The identity in the client certificate, if it presented one.
pub(super) fn peer_identity(connection: &ServerConnection) -> Option<Arc<PeerIdentity>> {
    let certificate = connection.peer_certificates()?.first()?;
    // It was already parsed during verification.
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    // A URI has a scheme: one without could be mistaken for a DNS name that its CA may not issue.
    let uris = certificate.valid_uri_names().filter(|uri| uri.contains(':'));
    let names = uris.chain(certificate.valid_dns_names());
    Some(Arc::new(PeerIdentity::new(names.map(str::to_owned))))
}
