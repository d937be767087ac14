//! Requests, each on a connection of its own: they are seconds or minutes apart. Must not depend on what is in them.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::connect::{AGENT, HEAD, Stream, credentials, dial, tunnel};
use crate::error::{HttpError, HttpErrorKind};
use crate::proxy::Proxies;
use crate::route::Route;
use crate::trust::Trust;

/// The limits of one fetch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time for the whole of it: resolving the host, connecting, TLS, request and answer.
    pub whole: Duration,
    /// Maximum size of the answer's body, in bytes.
    pub body: usize,
}

/// Fetches from servers that are trusted as `Trust` says, by the proxies of the environment. Redirects are not followed,
/// so that only the configured server is believed.
#[derive(Debug, Clone)]
pub struct Client {
    trust: Trust,
    limits: Limits,
    proxies: Proxies,
}

impl Client {
    /// A client with these limits.
    pub fn new(trust: Trust, limits: Limits) -> Client {
        Client { trust, limits, proxies: Proxies::of_environment() }
    }

    /// The same client, with these proxies.
    #[must_use]
    pub fn with_proxies(self, proxies: Proxies) -> Client {
        Client { proxies, ..self }
    }

    /// Checks whether a URL can be fetched at all, without connecting.
    ///
    /// # Errors
    ///
    /// [`HttpErrorKind::Setting`]: the URL, or a variable with a proxy, is one that can never work.
    pub fn check(&self, url: &Uri) -> Result<(), HttpError> {
        let route = Route::of(url, &self.proxies)?;
        if route.is_secure { self.trust.check().map(drop) } else { Ok(()) }
    }

    /// Sends a request, whose URL is absolute, and returns the body of the answer, whose status has to be 200. User
    /// information in the URL is not sent.
    ///
    /// # Errors
    ///
    /// Each kind of [`HttpErrorKind`]. With `Setting`, `Unresolved`, `Refused`, `Unreachable`, `Proxy` and `Tls` the
    /// server has received nothing.
    pub async fn fetch(&self, request: Request<Bytes>) -> Result<Bytes, HttpError> {
        Ok(self.exchange(request, |status| status == StatusCode::OK).await?.into_body())
    }

    /// Sends a request, and returns the answer, whatever its status.
    ///
    /// # Errors
    ///
    /// As [`Client::fetch`], but for `Status`.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.exchange(request, |_| true).await
    }

    async fn exchange(
        &self,
        request: Request<Bytes>,
        wanted: fn(StatusCode) -> bool,
    ) -> Result<Response<Bytes>, HttpError> {
        self.check(request.uri())?;
        let route = Route::of(request.uri(), &self.proxies)?;
        let end = Instant::now() + self.limits.whole;
        let stream = dial(route.first(), self.limits.whole, end).await;
        let stream = stream.map_err(|error| if route.proxy.is_some() { error.of_proxy() } else { error })?;
        let answer = async {
            match (route.is_secure, route.proxy) {
                (false, _) => self.ask(stream, &route, request, wanted).await,
                (true, None) => {
                    let stream = self.trust.handshake(&route.host, &route.server(), stream).await?;
                    self.ask(stream, &route, request, wanted).await
                }
                (true, Some(proxy)) => {
                    let server = route.server();
                    let stream = tunnel(stream, proxy, &server).await?;
                    let stream = self.trust.handshake(&route.host, &server, stream).await?;
                    self.ask(stream, &route, request, wanted).await
                }
            }
        };
        let late = |_| HttpError::silent(&route.whole(), self.limits.whole);
        timeout_at(end, answer).await.map_err(late)?
    }

    async fn ask(
        &self,
        stream: impl Stream,
        route: &Route<'_>,
        request: Request<Bytes>,
        wanted: fn(StatusCode) -> bool,
    ) -> Result<Response<Bytes>, HttpError> {
        let malformed = |error: hyper::Error| HttpError::malformed(&route.whole(), &error);
        let handshake = http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(malformed)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(addressed(request, route)?).await.map_err(malformed)?;
        let plain_proxy = route.proxy.filter(|_| !route.is_secure);
        match (response.status(), plain_proxy) {
            (StatusCode::PROXY_AUTHENTICATION_REQUIRED, Some(proxy)) => return Err(proxy.unauthorized()),
            (status, _) if !wanted(status) => return Err(HttpError::status(status, route.is_secure)),
            _ => {}
        }
        let (head, body) = response.into_parts();
        match Limited::new(body, self.limits.body).collect().await {
            Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(HttpError::too_large(self.limits.body)),
            Err(error) => Err(HttpError::malformed(&route.whole(), &*error)),
        }
    }
}

/// The request as it is sent on this route.
fn addressed(request: Request<Bytes>, route: &Route<'_>) -> Result<Request<Full<Bytes>>, HttpError> {
    let invalid =
        |what: &str| HttpError::new(HttpErrorKind::Setting, format!("the URL has an invalid {what}"));
    let (mut head, body) = request.into_parts();
    head.uri = route.target(head.uri.path_and_query()).parse().map_err(|_| invalid("path"))?;
    let host = HeaderValue::from_str(&route.host_header()).map_err(|_| invalid("host"))?;
    head.headers.insert(HOST, host);
    head.headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    if !route.is_secure {
        head.headers.extend(route.proxy.and_then(credentials));
    }
    Ok(Request::from_parts(head, Full::new(body)))
}
