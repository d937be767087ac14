//! Checks that the TLS files for NATS contain what they must. The client library silently takes a CA file without a
//! certificate as an empty trust store. Must not connect.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::options::{ConnectError, Options};

/// Returns the first fault of the TLS files.
pub(crate) fn check(options: &Options) -> Result<(), ConnectError> {
    faults(options).into_iter().next().map_or(Ok(()), Err)
}

/// All faults of the TLS files.
pub(crate) fn faults(options: &Options) -> Vec<ConnectError> {
    let refuse = |variable, path: &Path, why: String| ConnectError::Certificate {
        variable,
        path: path.to_owned(),
        why,
    };
    let mut found = Vec::new();
    if let Some(path) = &options.ca {
        found.extend(authorities(path).err().map(|why| refuse("NATS_CA", path, why)));
    }
    let chain = options.cert.as_deref().map(|path| (path, certificates(path)));
    let key = options.key.as_deref().map(|path| (path, key(path)));
    match (chain, key) {
        (Some((path, Ok(chain))), Some((_, Ok(key)))) => {
            let fits = CertifiedKey::from_der(chain, key, &Arc::new(default_provider()));
            let why = |error| format!("it does not match the key in NATS_KEY: {error}");
            found.extend(fits.err().map(|error| refuse("NATS_CERT", path, why(error))));
        }
        (chain, key) => {
            let chain = chain.and_then(|(path, chain)| Some(refuse("NATS_CERT", path, chain.err()?)));
            let key = key.and_then(|(path, key)| Some(refuse("NATS_KEY", path, key.err()?)));
            found.extend(chain.into_iter().chain(key));
        }
    }
    found
}

/// Checks that a file holds valid CA certificates.
fn authorities(path: &Path) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for (number, certificate) in certificates(path)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| format!("certificate {} is invalid: {error}", number + 1))?;
    }
    Ok(())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err("it contains no PEM certificate".to_owned()),
        found => found.map_err(|error| format!("it is not valid PEM: {error:?}")),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    // The file's contents are never shown.
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| "it contains no PEM private key".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(change: impl FnOnce(&mut Options)) -> Vec<String> {
        let mut options = Options::at("nats://one");
        change(&mut options);
        faults(&options).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_without_a_certificate_is_no_authority() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        for text in
            ["", "nothing of the kind\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            std::fs::write(&path, text).unwrap();
            let [fault] = &faults_of(|o| o.ca = Some(path.clone()))[..] else { panic!("{text}") };
            assert!(fault.contains("NATS_CA") && fault.contains("ca.pem"), "{fault}");
        }
    }

    #[test]
    fn every_file_that_cannot_be_read_is_named_with_its_variable() {
        let found = faults_of(|o| {
            (o.ca, o.cert, o.key) =
                (Some("/nowhere/a".into()), Some("/nowhere/b".into()), Some("/nowhere/c".into()));
        });
        let told = |n: usize, words: [&str; 2]| words.iter().all(|word| found[n].contains(word));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(told(0, ["NATS_CA", "/nowhere/a"]) && told(1, ["NATS_CERT", "/nowhere/b"]), "{found:?}");
        assert!(told(2, ["NATS_KEY", "/nowhere/c"]), "{found:?}");
    }
}
