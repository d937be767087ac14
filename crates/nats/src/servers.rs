//! Parses NATS_URL: servers, and maybe our login for them. Must not depend on how a connection is made.

use percent_encoding::percent_decode_str;

use crate::options::ConnectError;
use crate::secret::Secret;

/// The supported URL schemes.
const SCHEMES: [&str; 2] = ["nats", "tls"];

/// Servers, and one login for all of them.
#[derive(Debug)]
pub(crate) struct Servers {
    /// URLs without a user or a token: the client library may log them.
    pub(crate) urls: Vec<String>,
    /// The login that they contain, if any.
    pub(crate) login: Option<Login>,
}

/// A login in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// `user:password@`
    User(String, Secret),
    /// `token@`
    Token(Secret),
}

impl Servers {
    /// Parses URLs separated by commas. The client library has one login for all servers, so the URLs must agree.
    pub(crate) fn of(text: &str) -> Result<Servers, ConnectError> {
        let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty());
        let found = urls.map(server).collect::<Result<Vec<_>, _>>()?;
        let Some((first, login)) = found.first() else {
            return Err(ConnectError::Url("it names no server".to_owned()));
        };
        if let Some((other, _)) = found.iter().find(|(_, other)| other != login) {
            let (first, other) = (cli::url::shown(first), cli::url::shown(other));
            return Err(ConnectError::Url(format!(
                "{first} and {other} have different users or tokens; give every server the same one, or give none and \
                 set NATS_USER, NATS_CREDS, NATS_NKEY or NATS_TOKEN (a comma in a password is written %2C)"
            )));
        }
        let login = login.clone();
        Ok(Servers { urls: found.into_iter().map(|(url, _)| url).collect(), login })
    }
}

/// Splits a server's URL into the URL without its login, and the login.
fn server(url: &str) -> Result<(String, Option<Login>), ConnectError> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let scheme = scheme.to_ascii_lowercase();
    if !SCHEMES.contains(&&*scheme) {
        let known = scheme.chars().all(|c| c.is_ascii_alphanumeric());
        let scheme = if known { &*scheme } else { "…" };
        return Err(ConnectError::Url(format!(
            "the scheme {scheme}:// is not supported; use nats:// or tls://"
        )));
    }
    let user = cli::url::user_information(rest);
    let host = user.map_or(rest, |user| &rest[user.len() + 1..]);
    let login = user.filter(|user| !user.is_empty()).map(|user| login(user, host)).transpose()?;
    Ok((format!("{scheme}://{host}"), login))
}

fn login(user: &str, host: &str) -> Result<Login, ConnectError> {
    let host = cli::url::shown(host);
    let decoded = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
        decoded.map_err(|_| ConnectError::Url(format!("the user or token for {host} is not UTF-8")))
    };
    match user.split_once(':') {
        Some(("", _)) => Err(ConnectError::Url(format!("it has a password but no user for {host}"))),
        Some((user, password)) => Ok(Login::User(decoded(user)?, Secret::from(decoded(password)?))),
        None => Ok(Login::Token(Secret::from(decoded(user)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, password: &str) -> Option<Login> {
        Some(Login::User(name.to_owned(), Secret::from(password.to_owned())))
    }

    fn token(text: &str) -> Option<Login> {
        Some(Login::Token(Secret::from(text.to_owned())))
    }

    #[test]
    fn users_and_tokens_are_decoded_and_taken_out_of_the_urls() {
        let pairs = [
            ("one", "nats://one", None),
            ("tls://one:4222", "tls://one:4222", None),
            ("nats://ann:hush@one:1", "nats://one:1", user("ann", "hush")),
            ("nats://a%40b:p%40ss%3A%2F%2C@[::1]:1", "nats://[::1]:1", user("a@b", "p@ss:/,")),
            ("nats://ann:a:b@one", "nats://one", user("ann", "a:b")),
            ("nats://ann:100%@one", "nats://one", user("ann", "100%")),
            ("nats://ann:hu@sh/hush@one", "nats://one", user("ann", "hu@sh/hush")),
            ("nats://ann:@one", "nats://one", user("ann", "")),
            ("tls://t%2Bk@one", "tls://one", token("t+k")),
            ("hush@one", "nats://one", token("hush")),
            ("nats://@one", "nats://one", None),
            ("NATS://ann:Hush@one", "nats://one", user("ann", "Hush")),
            ("Tls://one", "tls://one", None),
        ];
        for (text, url, login) in pairs {
            let servers = Servers::of(text).unwrap();
            assert_eq!((servers.urls, servers.login), (vec![url.to_owned()], login), "{text}");
        }
    }

    #[test]
    fn servers_of_one_url_have_one_login() {
        let servers = Servers::of("nats://ann:h%75sh@one, nats://ann:hush@two,").unwrap();
        assert_eq!((servers.urls.len(), servers.login), (2, user("ann", "hush")));
        for text in [
            "nats://ann:hush@one,nats://bob:hush@two",
            "nats://ann:hush@one,nats://ann:hash@two",
            "nats://ann:hush@one,nats://two",
            "nats://one,nats://hush@two",
            // A comma in a password.
            "nats://ann:hush,hush@one",
        ] {
            let error = Servers::of(text).unwrap_err().to_string();
            assert!(error.contains("NATS_URL") && error.contains("one"), "{error}");
            assert!(!error.contains("hush") && !error.contains("hash"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_showing_it() {
        for (text, why) in [
            ("ws://ann:hush@one", "ws:// is not supported"),
            ("wss://one", "wss:// is not supported"),
            ("nats://:hush@one", "no user"),
            ("nats://ann:%ff%fehush@one", "not UTF-8"),
            (" , ", "no server"),
        ] {
            let error = Servers::of(text).unwrap_err().to_string();
            assert!(error.contains("NATS_URL") && error.contains(why) && !error.contains("hush"), "{error}");
        }
    }
}
