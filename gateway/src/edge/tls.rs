//! TLS of the gRPC port: the server's certificate and who signs the clients', read again when the files change. Calls
//! in hand keep the connection they came on. Must never know who a client is, only what its certificate says.

use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use crate::auth::Badge;
use crate::config::tls::{ClientAuth, Tls};
use crate::provider::ring;
use crate::reload::{Contents, Reload};

/// The protocol that gRPC speaks.
const HTTP2: &[u8] = b"h2";

/// Reads the files for the first time. None where there is to be no TLS.
pub(crate) fn open(config: &Tls) -> anyhow::Result<Option<Reload<ServerConfig>>> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        if config.tls_cert.is_some() || config.tls_key.is_some() || config.tls_client_ca.is_some() {
            bail!("TLS needs a certificate and its key (TLS_CERT, TLS_KEY)");
        }
        return Ok(None);
    };
    let mut paths = vec![cert.clone(), key.clone()];
    paths.extend(config.tls_client_ca.clone());
    let auth = config.tls_client_auth;
    Reload::open("the TLS certificate and key", paths, move |contents| read(contents, auth)).map(Some)
}

/// Certificate, key, and perhaps the clients' authority.
fn read(contents: &[Contents], auth: ClientAuth) -> anyhow::Result<ServerConfig> {
    let [cert, key, ca @ ..] = contents else { bail!("there are too few files") };
    let chain = certificates(cert).context("the certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| anyhow::anyhow!("there is no key in the key's file"))?;
    let builder = ServerConfig::builder_with_provider(ring()).with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match ca.first() {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca).context("the clients' authority")? {
                roots.add(certificate).context("the clients' authority")?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ring());
            builder.with_client_cert_verifier(match auth {
                ClientAuth::Required => verifier.build()?,
                ClientAuth::Optional => verifier.allow_unauthenticated().build()?,
            })
        }
    };
    // It says so if the key is another certificate's.
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    if !ca.is_empty() {
        // A session that is taken up again would skip the check of a certificate that may have ended meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
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

/// What the client's certificate says, if it showed one.
pub(super) fn badge(connection: &ServerConnection) -> Option<Arc<Badge>> {
    let certificate = connection.peer_certificates()?.first()?;
    // It was read once already, when it was checked.
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let names = certificate.valid_uri_names().chain(certificate.valid_dns_names());
    Some(Arc::new(Badge::new(names.map(str::to_owned))))
}
