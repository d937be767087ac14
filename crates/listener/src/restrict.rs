//! Rules for every response on an HTTP port of either service: requests are served for known hosts only, and responses
//! must not be cached or framed. Must not depend on the contents.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};

use crate::host::Hosts;

/// Headers of every response: it may be read by the requesting origin only, and stored by nobody.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// Serves `told` for known hosts only, and `probes` for all hosts: probes address an instance by any name, and get only
/// what the contract documents anyway. No response may be stored or framed.
pub fn restrict_hosts(told: Router, probes: Router, hosts: Hosts) -> Router {
    told.layer(from_fn_with_state(Arc::new(hosts), addressed)).merge(probes).layer(map_response(sealed))
}

/// Refuses a request for another host: a page under a DNS name that was made to resolve to this address must not read
/// it.
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
