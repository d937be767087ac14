//! Our credentials for NATS: one method, and its secret, from a file or the environment, read again for each
//! connection. Secrets are never printed, and are wiped when dropped (except the copies that the client library keeps).
//! Must not depend on where NATS is.

use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError, ConnectOptions};
use parking_lot::Mutex;

use crate::options::{ConnectError, Options, PASSWORD, TOKEN};
use crate::secret::Secret;
use crate::servers::{Login, Servers};

/// The maximum size of a file with a secret, in bytes.
const LARGEST: u64 = 64 * 1_024;
const PASSWORD_FILE: &str = "GW_NATS_PASSWORD_FILE";
/// A user or a token.
const IN_URL: &str = "a user in NATS_URL";
/// The prefix of a user nkey's seed.
const SEED: &str = "SU";

/// One authentication method.
#[derive(Debug)]
pub(crate) enum Credentials {
    /// None, or the client certificate.
    Nobody,
    /// A credentials file (JWT and seed).
    File(PathBuf, Secret),
    /// An nkey's seed, and its file.
    Key(PathBuf, Secret),
    /// A user name and a password.
    User(String, Secret),
    /// A token.
    Token(Secret),
}

impl Credentials {
    /// Reads the method from the options. More than one is refused: the client library would choose among them.
    pub(crate) fn of(options: &Options, url: Option<Login>) -> Result<Credentials, ConnectError> {
        Credentials::read(options, url).map_err(|error| with_variable(error, options))
    }

    fn read(options: &Options, url: Option<Login>) -> Result<Credentials, ConnectError> {
        let Options { creds, nkey, user, password, password_file, token, token_file, .. } = options;
        only_one(&[
            ("NATS_CREDS", creds.is_some()),
            ("NATS_NKEY", nkey.is_some()),
            ("NATS_USER", user.is_some()),
            (TOKEN, token.is_some()),
            ("GW_NATS_TOKEN_FILE", token_file.is_some()),
            (IN_URL, url.is_some()),
        ])?;
        let passwords = [(PASSWORD, password.is_some()), (PASSWORD_FILE, password_file.is_some())];
        only_one(&passwords)?;
        only_one(&[passwords[0], (IN_URL, url.is_some())])?;
        only_one(&[passwords[1], (IN_URL, url.is_some())])?;
        match url {
            Some(Login::User(user, password)) => return Ok(Credentials::User(user, password)),
            Some(Login::Token(token)) => return Ok(Credentials::Token(token)),
            None => {}
        }
        match (user, passwords.iter().find(|(_, said)| *said)) {
            (None, Some((is, _))) => return Err(ConnectError::Incomplete { is, lacks: "NATS_USER" }),
            (Some(_), None) => {
                return Err(ConnectError::Incomplete { is: "NATS_USER", lacks: PASSWORD_FILE });
            }
            _ => {}
        }
        if let Some(path) = creds {
            return Ok(Credentials::File(path.clone(), read(path)?));
        }
        if let Some(path) = nkey {
            return seed(path);
        }
        let password = secret(password, password_file)?;
        Ok(match (user, password, secret(token, token_file)?) {
            (Some(user), Some(password), _) => Credentials::User(user.clone(), password),
            (.., Some(token)) => Credentials::Token(token),
            _ => Credentials::Nobody,
        })
    }

    /// The library's options to connect, from the files as they are at that moment: a password may have changed since.
    /// If a file cannot be read then, the last good credentials are used.
    pub(crate) fn give(self, of: &Options) -> Result<ConnectOptions, ConnectError> {
        // Without credentials there is no secret that could change.
        if matches!(self, Credentials::Nobody) {
            return Ok(ConnectOptions::new());
        }
        self.auth(&[]).map_err(|error| with_variable(error, of))?;
        let (of, last) = (of.clone(), Mutex::new((self, true)));
        Ok(ConnectOptions::with_auth_callback(move |nonce| {
            let now = Servers::of(&of.url).and_then(|servers| Credentials::of(&of, servers.login));
            let now = now.and_then(|now| now.auth(&nonce).map(|auth| (now, auth)));
            let (known, readable) = &mut *last.lock();
            let auth = match now {
                Ok((now, auth)) => {
                    (*known, *readable) = (now, true);
                    Ok(auth)
                }
                Err(error) => {
                    // Logged once, and not at every attempt.
                    if std::mem::take(readable) {
                        tracing::warn!(%error, "cannot read the NATS credentials; using the last ones");
                    }
                    known.auth(&nonce)
                }
            };
            std::future::ready(auth.map_err(|error| AuthError::new(error.to_string())))
        }))
    }

    /// The answer to a server's nonce.
    fn auth(&self, nonce: &[u8]) -> Result<Auth, ConnectError> {
        let mut auth = Auth::new();
        match self {
            Credentials::Nobody => {}
            Credentials::File(path, text) => {
                let (jwt, seed) = parts(text.as_str())
                    .ok_or_else(|| unreadable(path, "it must contain a JWT and a seed"))?;
                auth.jwt = Some(jwt.to_owned());
                auth.signature = Some(sign(seed, nonce).map_err(|error| unreadable(path, error))?);
            }
            Credentials::Key(path, seed) => {
                let pair =
                    nkeys::KeyPair::from_seed(seed.as_str()).map_err(|error| unreadable(path, error))?;
                auth.nkey = Some(pair.public_key());
                auth.signature = Some(sign(seed.as_str(), nonce).map_err(|error| unreadable(path, error))?);
            }
            Credentials::User(user, password) => {
                (auth.username, auth.password) = (Some(user.clone()), Some(password.text()));
            }
            Credentials::Token(token) => auth.token = Some(token.text()),
        }
        Ok(auth)
    }
}

/// Refuses more than one method.
fn only_one(ways: &[(&'static str, bool)]) -> Result<(), ConnectError> {
    let mut said = ways.iter().filter(|(_, said)| *said).map(|(name, _)| *name);
    match (said.next(), said.next()) {
        (Some(one), Some(other)) => Err(ConnectError::Ambiguous { one, other }),
        _ => Ok(()),
    }
}

/// A secret from the environment or from a file.
fn secret(text: &Option<Secret>, file: &Option<PathBuf>) -> Result<Option<Secret>, ConnectError> {
    match (text, file) {
        (Some(text), _) => Ok(Some(text.clone())),
        (None, file) => file.as_deref().map(line).transpose(),
    }
}

/// The seed in a file, which may also hold the public key and comments.
fn seed(path: &Path) -> Result<Credentials, ConnectError> {
    let text = read(path)?;
    let seed = text.as_str().lines().map(str::trim).find(|line| line.starts_with(SEED));
    let seed = seed.ok_or_else(|| unreadable(path, "no line is a user nkey's seed (SU…)"))?;
    // The library would only log that the seed is invalid, and connect without credentials.
    nkeys::KeyPair::from_seed(seed).map_err(|error| unreadable(path, error))?;
    Ok(Credentials::Key(path.to_owned(), Secret::from(seed.to_owned())))
}

/// The JWT and the seed of a credentials file.
fn parts(text: &str) -> Option<(&str, &str)> {
    let mut parts = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('-'));
    let jwt = parts.find(|line| line.starts_with("ey"))?;
    Some((jwt, text.lines().map(str::trim).find(|line| line.starts_with(SEED))?))
}

fn sign(seed: &str, nonce: &[u8]) -> Result<Vec<u8>, nkeys::error::Error> {
    nkeys::KeyPair::from_seed(seed)?.sign(nonce)
}

/// A file's only line.
fn line(path: &Path) -> Result<Secret, ConnectError> {
    let text = read(path)?;
    let line = text.as_str().trim_end_matches(['\r', '\n']);
    if line.is_empty() || line.contains(['\r', '\n']) {
        return Err(unreadable(path, "it must have exactly one line, the secret"));
    }
    Ok(Secret::from(line.to_owned()))
}

fn read(path: &Path) -> Result<Secret, ConnectError> {
    warn_if_exposed(path);
    let size = std::fs::metadata(path).map_err(|error| unreadable(path, error))?.len();
    if size > LARGEST {
        return Err(unreadable(path, "it is too large for a secret"));
    }
    std::fs::read_to_string(path).map(Secret::from).map_err(|error| unreadable(path, error))
}

/// Warns if a file with a secret is readable by users other than its owner and group.
pub fn warn_if_exposed(path: &Path) {
    if cli::file::is_newly_exposed(path) {
        tracing::warn!(
            "{} contains a secret, and every user of this machine may read it: chmod o=",
            path.display()
        );
    }
}

fn unreadable(path: &Path, why: impl std::fmt::Display) -> ConnectError {
    // The caller, which has the options, adds the variable that names the file.
    ConnectError::Credentials { variable: "", path: path.to_owned(), why: why.to_string() }
}

/// The error with the variable that names its file.
fn with_variable(error: ConnectError, options: &Options) -> ConnectError {
    let ConnectError::Credentials { path, why, .. } = error else { return error };
    let files = [
        ("NATS_CREDS", &options.creds),
        ("NATS_NKEY", &options.nkey),
        (PASSWORD_FILE, &options.password_file),
        ("GW_NATS_TOKEN_FILE", &options.token_file),
    ];
    let named = files.iter().find(|(_, file)| file.as_ref() == Some(&path));
    ConnectError::Credentials { variable: named.map_or("NATS_CREDS", |(name, _)| name), path, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::Servers;

    fn options(change: impl FnOnce(&mut Options)) -> Result<Credentials, String> {
        let mut options = Options::at("nats://one");
        change(&mut options);
        let servers = Servers::of(&options.url).map_err(|error| error.to_string())?;
        Credentials::of(&options, servers.login).map_err(|error| error.to_string())
    }

    #[test]
    fn two_ways_of_saying_who_we_are_are_refused_by_their_names() {
        let both = options(|o| (o.user, o.nkey) = (Some("ann".to_owned()), Some("seed".into()))).unwrap_err();
        assert!(both.contains("NATS_NKEY") && both.contains("NATS_USER"), "{both}");
        let both =
            options(|o| (o.token, o.url) = (Some("t".to_owned().into()), "nats://ann:x@one".to_owned()));
        assert!(both.unwrap_err().contains("NATS_TOKEN and a user in NATS_URL"));
        let password = |o: &mut Options| {
            (o.password, o.url) = (Some("x".to_owned().into()), "nats://ann:y@one".to_owned());
        };
        assert!(options(password).unwrap_err().contains("NATS_PASSWORD and a user in NATS_URL"));
        let both = options(|o| {
            o.user = Some("ann".to_owned());
            (o.password, o.password_file) = (Some("x".to_owned().into()), Some("file".into()));
        });
        assert!(both.unwrap_err().contains("GW_NATS_PASSWORD_FILE"));
    }

    #[test]
    fn a_user_without_a_password_and_a_password_without_a_user_are_refused() {
        let alone = options(|o| o.user = Some("ann".to_owned())).unwrap_err();
        assert!(alone.contains("GW_NATS_PASSWORD_FILE"), "{alone}");
        let alone = options(|o| o.password_file = Some("file".into())).unwrap_err();
        assert!(alone.contains("NATS_USER"), "{alone}");
        let stray = options(|o| (o.creds, o.password) = (Some("file".into()), Some("x".to_owned().into())));
        assert!(stray.unwrap_err().contains("NATS_PASSWORD needs NATS_USER"));
        assert!(matches!(options(|_| {}), Ok(Credentials::Nobody)));
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused_by_its_name_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (text, file) in
            [("", "token"), ("one\ntwo\n", "token"), ("hush hush", "nkey"), ("SUHUSH", "nkey")]
        {
            std::fs::write(&path, text).unwrap();
            let refused = options(|o| match file {
                "token" => o.token_file = Some(path.clone()),
                _ => o.nkey = Some(path.clone()),
            });
            let refused = refused.unwrap_err();
            assert!(refused.contains("secret") && (text.is_empty() || !refused.contains(text)), "{refused}");
        }
        assert!(options(|o| o.token_file = Some("/nowhere".into())).unwrap_err().contains("/nowhere"));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let shown =
            options(|o| (o.user, o.password) = (Some("ann".to_owned()), Some("hush".to_owned().into())));
        let shown = format!("{:?}", shown.unwrap());
        assert!(shown.contains("ann") && !shown.contains("hush"), "{shown}");
    }
}
