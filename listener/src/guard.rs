//! What holds for every answer on an HTTP port of either service: it is given for known hosts alone, and read by nobody
//! but whoever asked. Must never know what is told.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};

use crate::host::Hosts;

/// What no response may be used for: it is read by whoever asked, and kept by nobody.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// Serves these routes for known hosts alone, and those of probes for all: probes address an instance by whatever name
/// they like, and learn what the contract says anyhow. No answer is to be kept or framed.
pub fn guarded(told: Router, probes: Router, hosts: Hosts) -> Router {
    told.layer(from_fn_with_state(Arc::new(hosts), addressed)).merge(probes).layer(map_response(sealed))
}

/// Refuses a request for another host: a page whose name was made to lead here must not read what we tell.
async fn addressed(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    match host.map(HeaderValue::to_str) {
        None => next.run(request).await,
        Some(Ok(host)) if hosts.know(host) => next.run(request).await,
        Some(_) => (StatusCode::FORBIDDEN, "this host is not served here (GW_HTTP_HOSTS)\n").into_response(),
    }
}

async fn sealed(mut response: Response) -> Response {
    response.headers_mut().extend(HEADERS);
    response
}
