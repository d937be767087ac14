//! TLS of the gRPC port: the server's certificate and who signs the clients', read again when the files change. Calls
//! in hand keep the connection they came on. Must never know who a client is, only what its certificate says.

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
use crate::auth::{Authorities, Badge, Trust, Upkeep, unix};
use crate::config::tls::{ClientAuth, Tls};
use crate::fresh::Kept;
use crate::provider::ring;
use crate::reload::{Contents, Made, Reload, text};

/// The protocol that gRPC speaks.
const HTTP2: &[u8] = b"h2";
/// Where a certificate begins in a PEM file.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// What the port's encryption is now.
pub(crate) struct Current {
    /// For handshakes.
    pub(crate) configs: watch::Receiver<Arc<ServerConfig>>,
    /// Whose clients are believed, where they are asked for a certificate.
    pub(crate) trust: Option<Trust>,
    /// When what is in use ends.
    pub(crate) expiry: Expiry,
}

/// Reads the files for the first time. None where there is to be no TLS.
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
                Reload::open("the clients' authorities (GW_TLS_CLIENT_CA)", vec![path.clone()], roots)?;
            Some(upkeep.guard(roots.within("tls_client_ca", stale)))
        }
    };
    let required = config.tls_client_auth == ClientAuth::Required;
    let certificates = roots.as_ref().map(Kept::latest);
    let first = certificates.as_ref().map(|latest| latest.borrow().clone()).unwrap_or_default();
    let first = Authorities::of(&first, required, unix()).context("the clients' authorities")?;
    if roots.is_some() && first.verifier().is_none() {
        bail!("every authority in GW_TLS_CLIENT_CA has ended, or there is none");
    }
    let identity = upkeep.keep(identity);
    let config = server_config(&identity.borrow(), roots.is_some().then_some(&first))?;
    let (configs, authorities) = (watch::Sender::new(Arc::new(config)), watch::Sender::new(Arc::new(first)));
    let trust = roots.as_ref().map(|roots| Trust::new(authorities.subscribe(), roots.fresh().clone()));
    let expiry = Expiry { identity: Some(identity.clone()), authorities: certificates.clone() };
    let current = Current { configs: configs.subscribe(), trust, expiry };
    upkeep.also(Weaver { identity, certificates, required, configs, authorities }.run());
    Ok(Some(current))
}

/// Makes one configuration of files that change each at its time: a certificate and a key that do not fit must not keep
/// an authority in force that was taken out.
struct Weaver {
    identity: watch::Receiver<Arc<CertifiedKey>>,
    certificates: Option<watch::Receiver<Arc<Vec<CertificateDer<'static>>>>>,
    required: bool,
    configs: watch::Sender<Arc<ServerConfig>>,
    authorities: watch::Sender<Arc<Authorities>>,
}

impl Weaver {
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
                tracing::error!(error = format!("{error:#}"), "TLS stays as it is");
            }
        }
    }

    fn weave(&mut self) -> anyhow::Result<()> {
        let latest = self.certificates.as_mut().map(|latest| latest.borrow_and_update().clone());
        let authorities = Authorities::of(&latest.clone().unwrap_or_default(), self.required, unix())?;
        let identity = self.identity.borrow_and_update().clone();
        let config = server_config(&identity, latest.is_some().then_some(&authorities));
        // A number that is seen says that its configuration is there already. Where there is no authority left, handshakes
        // go on as before, and nobody who has a certificate is believed.
        config.map(|config| drop(self.configs.send_replace(Arc::new(config)))).unwrap_or_else(|error| {
            tracing::warn!(%error, "clients' certificates let nobody in");
        });
        self.authorities.send_replace(Arc::new(authorities));
        Ok(())
    }
}

/// The server's certificate and its key, which have to fit.
fn identity(contents: &[Contents]) -> anyhow::Result<CertifiedKey> {
    let [cert, key] = contents else { bail!("there are too few files") };
    let chain = certificates(cert).context("the certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| anyhow::anyhow!("there is no key in the key's file"))?;
    // It says so if the key is another certificate's.
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
            .with_client_cert_verifier(authorities.verifier().context("no authority is left that is good")?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.clone())));
    config.alpn_protocols = vec![HTTP2.to_vec()];
    if authorities.is_some() {
        // A session that is taken up again would skip the check of a certificate that may have ended meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// The authorities of a file, each by itself: one that cannot be read keeps no other in force or out.
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
    let found = found.map_err(|error| anyhow::anyhow!("this is no PEM: {error:?}"))?;
    if found.is_empty() {
        bail!("there is no certificate in the file");
    }
    Ok(found)
}

/// Whether both sides agreed on HTTP/2. Who does not ask for it may mean anything.
pub(super) fn speaks(connection: &ServerConnection) -> bool {
    connection.alpn_protocol() == Some(HTTP2)
}

/// The client's certificates, if it showed any.
pub(super) fn chain(connection: &ServerConnection) -> Option<Vec<CertificateDer<'static>>> {
    Some(connection.peer_certificates()?.iter().map(|certificate| certificate.clone().into_owned()).collect())
}

/// What the client's certificate says, if it showed one.
pub(super) fn badge(connection: &ServerConnection) -> Option<Arc<Badge>> {
    let certificate = connection.peer_certificates()?.first()?;
    // It was read once already, when it was checked.
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    // A URI has a scheme: one without could be taken for a DNS name that its signer may not give.
    let uris = certificate.valid_uri_names().filter(|uri| uri.contains(':'));
    let names = uris.chain(certificate.valid_dns_names());
    Some(Arc::new(Badge::new(names.map(str::to_owned))))
}
