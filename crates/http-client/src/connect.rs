//! Connections: TCP to one of a host's addresses, and a tunnel through a proxy. Must not depend on requests.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::error::{HttpError, HttpErrorKind};
use crate::proxy::Proxy;

/// Our `User-Agent`.
pub const AGENT: &str = concat!("order-gateway/", env!("CARGO_PKG_VERSION"));
/// Maximum size of an answer's head, in bytes.
pub(crate) const HEAD: usize = 64 << 10;

/// What a request is sent over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Connects to a host until `end`, which is `limit` after the start; `peer` is the host's name in errors.
pub(crate) async fn dial(
    (host, port, peer): (&str, u16, String),
    limit: Duration,
    end: Instant,
) -> Result<TcpStream, HttpError> {
    let failed = |kind, why: &str| HttpError::new(kind, format!("cannot connect to {peer}: {why}"));
    let late = |what: &str| failed(HttpErrorKind::Unreachable, &format!("{what} within {limit:?}"));
    let unresolved = |why: &dyn std::fmt::Display| {
        let remedy = "correct the name, or this machine's name resolution";
        failed(HttpErrorKind::Unresolved, &format!("the host cannot be resolved ({why}): {remedy}"))
    };
    let found = timeout_at(end, lookup_host((host, port))).await;
    let found = found.map_err(|_| late("the host was not resolved"))?.map_err(|error| unresolved(&error))?;
    let (addresses, mut last) = (found.collect::<Vec<_>>(), unresolved(&"it has no address"));
    for (tried, address) in addresses.iter().enumerate() {
        // None of the addresses may take the time of the others.
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = end.saturating_duration_since(Instant::now()) / left;
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => failed(
                HttpErrorKind::Refused,
                &format!("{error}: check that the server runs and listens on this port"),
            ),
            Ok(Err(error)) => failed(HttpErrorKind::Unreachable, &error.to_string()),
            Err(_) => late("no connection, as when a firewall drops its packets"),
        };
    }
    Err(last)
}

/// Asks a proxy for a tunnel to a server (`HOST:PORT`).
pub(crate) async fn tunnel(
    stream: impl Stream,
    proxy: &Proxy,
    server: &str,
) -> Result<TokioIo<Upgraded>, HttpError> {
    let malformed = |error: hyper::Error| HttpError::malformed(&proxy.to_string(), &error);
    let invalid = |error: &dyn std::fmt::Display| {
        HttpError::new(HttpErrorKind::Setting, format!("{server} is not a host and a port: {error}"))
    };
    let handshake = http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(malformed)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let mut request = Request::connect(server)
        .header(HOST, server)
        .header(USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|error| invalid(&error))?;
    request.headers_mut().extend(credentials(proxy));
    let response = sender.send_request(request).await.map_err(malformed)?;
    match response.status() {
        status if status.is_success() => {
            hyper::upgrade::on(response).await.map(TokioIo::new).map_err(malformed)
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(proxy.unauthorized()),
        status => Err(HttpError::new(
            HttpErrorKind::Proxy,
            format!(
                "{proxy} refused a connection to {server}: {status}; permit it there, or list the host in NO_PROXY"
            ),
        )),
    }
}

/// The header with our credentials for a proxy.
pub(crate) fn credentials(proxy: &Proxy) -> Option<(http::HeaderName, HeaderValue)> {
    proxy.authorization.clone().map(|value| (PROXY_AUTHORIZATION, value))
}
