//! A certificate authority, for valid and invalid certificates. Keys are generated at test time.

use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct CertAndKey {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Authority {
        Authority::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names. Those with a `:` are URIs.
    pub fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertAndKey {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        for name in names {
            let text = Ia5String::try_from(*name).unwrap();
            let name = if name.contains(':') { SanType::URI(text) } else { SanType::DnsName(text) };
            params.subject_alt_names.push(name);
        }
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        CertAndKey { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A server's certificate.
    pub fn server(&self) -> CertAndKey {
        self.sign(&["localhost"], |_| {})
    }

    /// A client's certificate.
    pub fn client(&self, name: &str) -> CertAndKey {
        self.sign(&[name], |_| {})
    }
}

/// Makes a certificate expired.
pub fn expired(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
}

impl CertAndKey {
    /// Writes both into a folder, for a server.
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let paths = (folder.join("tls.crt"), folder.join("tls.key"));
        std::fs::write(&paths.0, &self.cert).unwrap();
        std::fs::write(&paths.1, &self.key).unwrap();
        paths
    }
}

/// An endpoint of a server on this port, for a client that trusts this authority and may have a certificate.
pub fn endpoint(port: u16, authority: &Authority, client: Option<&CertAndKey>) -> Endpoint {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .domain_name("localhost");
    if let Some(client) = client {
        tls = tls.identity(Identity::from_pem(&client.cert, &client.key));
    }
    Channel::from_shared(format!("https://127.0.0.1:{port}")).unwrap().tls_config(tls).unwrap()
}
