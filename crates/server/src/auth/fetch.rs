//! Fetches one document: by https, or by http on the loopback address, and by a proxy where the environment names one.
//! Redirects are not followed, so only the configured server is trusted.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{Request, Uri};
use http_client::{Client, HttpError, Limits, Trust};

/// The limits of a fetch: its time, and the size of a document in bytes.
pub(super) const LIMITS: Limits = Limits { whole: Duration::from_secs(5), body: 256 << 10 };

/// The variable that names the CA certificates.
const CA: &str = "GW_JWT_JWKS_CA";

/// The address of a document, and the client for it.
pub(super) struct Fetch {
    url: Uri,
    client: Client,
}

impl Fetch {
    /// `ca` is a file with the CA certificates that verify the server; without it, the system's are used.
    pub(super) fn new(url: &Uri, ca: Option<&Path>) -> anyhow::Result<Fetch> {
        let trust = match (url.scheme_str(), ca) {
            (Some("https"), Some(path)) => {
                let trust = Trust::of(Some(&crate::reload::read(path)?), CA);
                trust.with_context(|| format!("{}", path.display()))?
            }
            (Some("https"), None) => Trust::of(None, CA)?,
            _ => Trust::plain(),
        };
        let client = Client::new(trust, LIMITS);
        client.check(url)?;
        Ok(Fetch { url: url.clone(), client })
    }

    /// Fetches the document.
    pub(super) async fn get(&self) -> Result<Bytes, HttpError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = self.url.clone();
        request.headers_mut().insert(ACCEPT, http::HeaderValue::from_static("application/json"));
        self.client.fetch(request).await
    }
}
