//! Why a fetch failed: a kind to branch on, and a text that says what to change. Must not contain a secret of a URL.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

/// Why a fetch failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    kind: HttpErrorKind,
    text: String,
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpErrorKind {
    /// The URL, a variable with a proxy, or the trusted CAs do not permit this fetch. Nothing was connected.
    Setting,
    /// The host cannot be resolved.
    Unresolved,
    /// The connection was refused: nothing listens there.
    Refused,
    /// The host cannot be reached in time, or not at all.
    Unreachable,
    /// The proxy cannot be reached, or it refused to pass the request on.
    Proxy,
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls,
    /// There was a connection, and no whole answer in time.
    Silent,
    /// The answer is not HTTP, or it broke off.
    Malformed,
    /// The answer has another status than 200.
    Status(StatusCode),
    /// The answer is larger than permitted.
    TooLarge,
}

impl HttpError {
    pub(crate) fn new(kind: HttpErrorKind, text: String) -> HttpError {
        HttpError { kind, text }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> HttpErrorKind {
        self.kind
    }

    /// The same failure, of a proxy: it says nothing about the server.
    pub(crate) fn of_proxy(self) -> HttpError {
        HttpError { kind: HttpErrorKind::Proxy, ..self }
    }

    pub(crate) fn silent(peer: &str, limit: Duration) -> HttpError {
        let text = format!("no answer from {peer} within {limit:?}: the server may hang");
        HttpError::new(HttpErrorKind::Silent, text)
    }

    pub(crate) fn malformed(peer: &str, cause: &dyn Error) -> HttpError {
        let text = format!(
            "the answer of {peer} is not HTTP, or it broke off ({}): check the port in the URL, which must begin with \
             https:// if the port uses TLS",
            chain(cause)
        );
        HttpError::new(HttpErrorKind::Malformed, text)
    }

    pub(crate) fn status(status: StatusCode, is_secure: bool) -> HttpError {
        let remedy = match status {
            status if status.is_redirection() => {
                " (redirects are not followed: the URL must be where the document is)"
            }
            // That is how many servers answer plain HTTP on a port with TLS.
            StatusCode::BAD_REQUEST if !is_secure => {
                " (the URL must begin with https:// if the port uses TLS)"
            }
            _ => "",
        };
        HttpError::new(HttpErrorKind::Status(status), format!("the server answered {status}{remedy}"))
    }

    pub(crate) fn too_large(most: usize) -> HttpError {
        HttpError::new(HttpErrorKind::TooLarge, format!("the answer is larger than {most} bytes"))
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for HttpError {}

/// An error and its sources, as one text.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
