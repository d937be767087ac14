//! Authentication and authorization of every rpc: identifies the caller, checks the access rule of the rpc, and
//! enforces the caller's quota. Must not parse messages, nor decide about orders: the domain checks who owns an order.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use admission::MeasuredBody;
use bytes::Bytes;
use catalog::{Catalog, Rule};
use futures_util::future::Either;
use hyper::service::Service;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tower::BoxError;
use wire::{Delivered, Failure, Reason};

use super::client_stream::RequestEnd;
use super::origin::Origin;
use super::peer::Peer;
use super::reauthorization::{End, Reauthorization, end};
use super::rpcs::{Answering, Rpcs};
use super::served::Current;
use super::status;
use crate::auth::{Access, AuthError, Caller, credentials};
use crate::config::access::Reflection;
use bridge::share::Share;

/// Health is open: probes have no credentials.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// Server reflection.
const REFLECTION: &str = "/grpc.reflection.";
/// Minimum interval between two logged refusals; each has the number of refusals since the last.
const LOG: Duration = Duration::from_millis(200);
/// Interval between two rechecks.
const AGAIN: Duration = Duration::from_secs(5);
/// Retries of the recheck of a stream, if too many calls wait for a key, and the pause between them. Together they last
/// longer than any call may wait for a key, but not long: the stream continues meanwhile.
const BUSY: u32 = 10;
const PAUSE: Duration = Duration::from_secs(2);

/// Authorization. One for all threads of a gateway.
pub struct Authorization {
    access: Access,
    /// For streams, which outlive the catalog that they began with.
    current: Current,
    reflection: Reflection,
    logged: Mutex<Logged>,
}

struct Logged {
    last: Option<Instant>,
    since: u64,
}

/// What a stream was authorized with.
struct CallAuthority {
    guard: Arc<Authorization>,
    rule: Option<Arc<Rule>>,
    /// None: the rpc is public.
    caller: Option<Arc<Caller>>,
    /// The headers with credentials only.
    headers: http::HeaderMap,
    peer: Arc<Peer>,
}

impl CallAuthority {
    async fn end(self) -> Failure {
        loop {
            sleep(AGAIN).await;
            if let Err(failure) = self.guard.again(&self).await {
                return failure;
            }
        }
    }
}

/// The policy of a path.
#[derive(Clone)]
enum Policy {
    /// Open to everyone.
    Open,
    /// Open to authenticated callers.
    Known,
    /// Open to everyone by this rule: whoever calls is not identified.
    Public(Arc<Rule>),
    /// Open to callers that satisfy a rule.
    Rule(Arc<Rule>),
    /// Closed to all callers.
    Closed,
}

impl Authorization {
    /// Authorization with these credentials, the access rules of what is served and this policy for reflection.
    pub(crate) fn new(access: Access, current: Current, reflection: Reflection) -> Authorization {
        Authorization { access, current, reflection, logged: Mutex::new(Logged { last: None, since: 0 }) }
    }

    fn way(&self, catalog: &Catalog, path: &str) -> Policy {
        match catalog.rule(path) {
            Some(rule) if rule.is_public() => Policy::Public(rule.clone()),
            Some(rule) => Policy::Rule(rule.clone()),
            None if path.starts_with(HEALTH) => Policy::Open,
            None if path.starts_with(REFLECTION) => match self.reflection {
                Reflection::Open => Policy::Open,
                Reflection::Callers => Policy::Known,
                Reflection::Off => Policy::Closed,
            },
            None => Policy::Closed,
        }
    }

    /// Authenticates and authorizes a caller, and takes a permit for the call.
    async fn admit(
        &self,
        headers: &http::HeaderMap,
        peer: &Peer,
        way: &Policy,
    ) -> Result<(Arc<Caller>, Arc<Share>), Failure> {
        let rpc = match way {
            Policy::Rule(rule) | Policy::Public(rule) => rule.path.as_str(),
            Policy::Open | Policy::Known | Policy::Closed => "another",
        };
        let caller = self.caller(headers, peer).await.map_err(Failure::from);
        let caller = caller.inspect_err(|failure| self.refused(failure, rpc, None))?;
        let allowed = match way {
            Policy::Rule(rule) => caller.allowed(rule),
            Policy::Open | Policy::Public(_) | Policy::Known => Ok(()),
            Policy::Closed => closed(),
        };
        let entered = allowed.and_then(|()| caller.enter());
        let held = entered.inspect_err(|failure| self.refused(failure, rpc, Some(&caller)))?;
        Ok((caller, Arc::new(held)))
    }

    /// The caller on this connection with these headers.
    async fn caller(&self, headers: &http::HeaderMap, peer: &Peer) -> Result<Arc<Caller>, AuthError> {
        self.access.caller(headers, peer.peer_identity(), peer.shares()).await
    }

    /// Rechecks a stream: whether it would be authorized again, by the rule that is now in force, as the same caller.
    async fn again(&self, authority: &CallAuthority) -> Result<(), Failure> {
        authority.peer.check()?;
        let rule = authority.rule.as_ref().map(|begun| self.in_force(begun)).transpose()?;
        let Some(known) = &authority.caller else { return rule.map_or_else(closed, |rule| public(&rule)) };
        let caller = patient(|| self.caller(&authority.headers, &authority.peer)).await?;
        rule.map_or(Ok(()), |rule| caller.allowed(&rule))?;
        if caller.principal != known.principal || caller.tenant != known.tenant {
            let failure =
                Failure::new(Reason::PermissionDenied, "the credential now belongs to another caller");
            return Err(failure.delivered(Delivered::No));
        }
        Ok(())
    }

    /// The rule that a stream's rpc has now.
    fn in_force(&self, begun: &Rule) -> Result<Arc<Rule>, Failure> {
        let Some(rule) = self.current.look().catalog().rule(&begun.path).cloned() else {
            return Err(no_rule());
        };
        // What its request was checked for is no longer what counts.
        if rule.tenant_field != begun.tenant_field {
            let message = "the access rule of the rpc has changed: call it again";
            return Err(Failure::new(Reason::PermissionDenied, message).delivered(Delivered::No));
        }
        Ok(rule)
    }

    /// Logs a refusal, rate-limited: callers that flood the gateway must not flood the logs as well.
    fn refused(&self, failure: &Failure, rpc: &str, caller: Option<&Caller>) {
        let now = Instant::now();
        let mut logged = self.logged.lock();
        logged.since += 1;
        if logged.last.is_some_and(|last| now - last < LOG) {
            return;
        }
        let count = std::mem::take(&mut logged.since);
        logged.last = Some(now);
        drop(logged);
        let principal = caller.map(|caller| &*caller.principal);
        tracing::info!(target: "access", reason = %failure.reason, why = %failure.message, rpc, principal, count, "refused");
    }
}

/// The refusal of an rpc without a rule.
fn no_rule() -> Failure {
    Failure::new(Reason::PermissionDenied, "no caller may call this rpc").delivered(Delivered::No)
}

fn closed() -> Result<(), Failure> {
    Err(no_rule())
}

/// Whether callers that are not identified may still call an rpc.
fn public(rule: &Rule) -> Result<(), Failure> {
    match rule.is_public() {
        true => Ok(()),
        false => Err(AuthError::Nothing.into()),
    }
}

/// Authenticates a caller again. If too many other calls wait for a key, that is no reason to end an authorized stream:
/// it retries for a while, within which the waiting calls are answered.
async fn patient<T, F: Future<Output = Result<T, AuthError>>>(find: impl Fn() -> F) -> Result<T, AuthError> {
    for _ in 0..BUSY {
        match find().await {
            Err(AuthError::Busy) => sleep(PAUSE).await,
            found => return found,
        }
    }
    find().await
}

/// All rpcs, for an authorized call on one connection.
pub(super) struct AuthorizedService<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) rpcs: &'a Rpcs,
    pub(super) guard: Option<&'a Arc<Authorization>>,
    pub(super) peer: &'a Arc<Peer>,
}

/// An authorized call until its response begins.
pub(super) type Authorized<B> =
    Either<Answering<B>, Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>>;

impl<B> Service<http::Request<MeasuredBody<B>>> for AuthorizedService<'_>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Authorized<B>;

    fn call(&self, request: http::Request<MeasuredBody<B>>) -> Self::Future {
        let AuthorizedService { catalog, rpcs, guard, peer } = *self;
        if let Err(failure) = peer.check() {
            return Either::Right(Box::pin(async move { Ok(status(failure).into_http()) }));
        }
        let path = request.uri().path();
        let way = guard.map_or(Policy::Open, |guard| guard.way(catalog, path));
        // If authentication is on, unauthenticated requests share a part of the memory budget.
        if guard.is_some()
            && matches!(way, Policy::Open | Policy::Public(_))
            && let Err(failure) = request.body().intake().charge().unknown()
        {
            return Either::Right(Box::pin(async move { Ok(status(failure).into_http()) }));
        }
        let origin = Origin::new(peer.clone(), request.body().intake().arrival());
        match (guard, way) {
            (Some(guard), way @ (Policy::Known | Policy::Rule(_) | Policy::Closed)) => {
                Either::Right(Box::pin(known(guard.clone(), way, rpcs.clone(), origin, request)))
            }
            (Some(guard), Policy::Public(rule)) if rule.streams => {
                let authority = CallAuthority {
                    rule: Some(rule),
                    caller: None,
                    headers: http::HeaderMap::new(),
                    peer: peer.clone(),
                    guard: guard.clone(),
                };
                let ends = end(Some(Box::pin(authority.end())), peer.clone(), false);
                Either::Right(Box::pin(ending(rpcs.clone(), origin, request, ends)))
            }
            _ if path.starts_with(HEALTH) || path.starts_with(REFLECTION) => {
                let ends = end(None, peer.clone(), true);
                Either::Right(Box::pin(ending(rpcs.clone(), origin, request, ends)))
            }
            // A watch without credentials ends when the client certificate of its connection does.
            _ if peer.certified() && catalog.rule(path).is_some_and(|rule| rule.streams) => {
                let ends = end(None, peer.clone(), false);
                Either::Right(Box::pin(ending(rpcs.clone(), origin, request, ends)))
            }
            _ => Either::Left(rpcs.call(origin, request)),
        }
    }
}

/// Serves an authenticated caller.
async fn known<B>(
    guard: Arc<Authorization>,
    way: Policy,
    rpcs: Rpcs,
    origin: Origin,
    mut request: http::Request<MeasuredBody<B>>,
) -> Result<http::Response<Body>, Infallible>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
{
    let (caller, held) = match guard.admit(request.headers(), &origin.peer, &way).await {
        Ok(admitted) => admitted,
        Err(failure) => return Ok(status(failure).into_http()),
    };
    if let Err(failure) = request.body().intake().charge().owned(caller.bytes()) {
        return Ok(status(failure).into_http());
    }
    let rule = match way {
        Policy::Rule(rule) | Policy::Public(rule) => Some(rule),
        Policy::Open | Policy::Known | Policy::Closed => None,
    };
    let ends = rule.as_ref().is_none_or(|rule| rule.streams).then(|| {
        let (headers, peer, moves) = (credentials(request.headers()), origin.peer.clone(), rule.is_none());
        let authority =
            CallAuthority { rule, caller: Some(caller.clone()), headers, peer: peer.clone(), guard };
        end(Some(Box::pin(authority.end())), peer, moves)
    });
    let ends = ends.and_then(|ends| of_response(ends, &rpcs, &mut request));
    let response = rpcs.call(origin.of(caller, held.clone()), request).await?;
    Ok(response.map(|body| Body::new(Reauthorization::over(body, Some(held), ends))))
}

/// Serves a caller that is not identified. A stream ends then.
async fn ending<B>(
    rpcs: Rpcs,
    origin: Origin,
    mut request: http::Request<MeasuredBody<B>>,
    ends: End,
) -> Result<http::Response<Body>, Infallible>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
{
    let ends = of_response(ends, &rpcs, &mut request);
    let response = rpcs.call(origin, request).await?;
    Ok(response.map(|body| Body::new(Reauthorization::over(body, None, ends))))
}

/// When the response of a stream has to end. A stream of requests has no response before it ends, and gets it instead.
fn of_response<B>(ends: End, rpcs: &Rpcs, request: &mut http::Request<MeasuredBody<B>>) -> Option<End> {
    if !rpcs.reads_streams(request.uri().path()) {
        return Some(ends);
    }
    request.extensions_mut().insert(RequestEnd::new(ends));
    None
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_goes_on_is_not_ended_because_too_many_wait_for_a_key() {
        let looks = Cell::new(0);
        let find = |busy: u32| {
            let looks = &looks;
            patient(move || async move {
                looks.set(looks.get() + 1);
                if looks.get() <= busy { Err(AuthError::Busy) } else { Ok(looks.get()) }
            })
        };
        assert_eq!(find(5).await, Ok(6));
        looks.set(0);
        let begun = Instant::now();
        assert_eq!(find(u32::MAX).await, Err(AuthError::Busy), "not for ever");
        assert_eq!(begun.elapsed(), BUSY * PAUSE);
        let stale = patient(|| async { Err::<(), _>(AuthError::Stale) }).await;
        assert_eq!((stale, begun.elapsed()), (Err(AuthError::Stale), BUSY * PAUSE), "at once");
    }
}
