//! Who stands before every rpc where callers have to be known: finds out who calls, whether the rpc's rule lets them
//! in, and whether they have as much in hand as one caller may. Must never look into a message, nor decide about an
//! order: whose it is, is known behind.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use admission::Measured;
use bytes::Bytes;
use contract::access::{Rule, rule};
use contract::{Delivered, Failure, Reason};
use futures_util::future::Either;
use hyper::service::Service;
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tower::BoxError;

use super::origin::Origin;
use super::peer::Peer;
use super::rpcs::{Answering, Rpcs};
use super::status;
use super::vigil::{Ticket, Vigil, end};
use crate::auth::{Access, Caller, Unknown, credentials};
use crate::config::access::Reflection;
use crate::share::Hold;

/// Health is for everybody: a probe has no credential.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// The contract, as far as reflection tells it.
const REFLECTION: &str = "/grpc.reflection.";
/// Refusals are logged so often, with how many there were since.
const LOG: Duration = Duration::from_millis(200);
/// How often a call that goes on is looked at once more when too many wait for a key, and what is between. Longer than any
/// of them may wait, and short: meanwhile the call goes on.
const BUSY: u32 = 10;
const PAUSE: Duration = Duration::from_secs(2);

/// What the guard knows. One for all threads of a gateway.
pub(crate) struct Guard {
    access: Access,
    reflection: Reflection,
    logged: Mutex<Logged>,
}

struct Logged {
    last: Option<Instant>,
    since: u64,
}

/// What a path asks of whoever calls it.
#[derive(Clone, Copy)]
enum Way {
    /// Nothing.
    Open,
    /// To be known.
    Known,
    /// What a rule says.
    Rule(&'static Rule),
    /// Nobody may call it.
    Closed,
}

impl Guard {
    /// A guard who knows callers like this.
    pub(crate) fn new(access: Access, reflection: Reflection) -> Guard {
        Guard { access, reflection, logged: Mutex::new(Logged { last: None, since: 0 }) }
    }

    fn way(&self, path: &str) -> Way {
        match rule(path) {
            Some(rule) => Way::Rule(rule),
            None if path.starts_with(HEALTH) => Way::Open,
            None if path.starts_with(REFLECTION) => match self.reflection {
                Reflection::Open => Way::Open,
                Reflection::Callers => Way::Known,
                Reflection::Off => Way::Closed,
            },
            None => Way::Closed,
        }
    }

    /// Lets a caller in, with a place for the call, or says why not.
    async fn admit(
        &self,
        headers: &http::HeaderMap,
        peer: &Peer,
        way: Way,
    ) -> Result<(Arc<Caller>, Arc<Hold>), Failure> {
        let rpc = match way {
            Way::Rule(rule) => rule.path,
            Way::Open | Way::Known | Way::Closed => "another",
        };
        let caller = self.caller(headers, peer).await.map_err(Failure::from);
        let caller = caller.inspect_err(|failure| self.refused(failure, rpc, None))?;
        let allowed = match way {
            Way::Rule(rule) => caller.allowed(rule),
            Way::Open | Way::Known => Ok(()),
            Way::Closed => {
                let failure = Failure::new(Reason::PermissionDenied, "nobody may call this");
                Err(failure.delivered(Delivered::No))
            }
        };
        let entered = allowed.and_then(|()| caller.enter());
        let held = entered.inspect_err(|failure| self.refused(failure, rpc, Some(&caller)))?;
        Ok((caller, Arc::new(held)))
    }

    /// Who calls on this connection with these headers.
    async fn caller(&self, headers: &http::HeaderMap, peer: &Peer) -> Result<Arc<Caller>, Unknown> {
        self.access.caller(headers, peer.badge(), peer.shares()).await
    }

    /// Whether a call that goes on would be let in again, as the same.
    pub(super) async fn again(&self, ticket: &Ticket) -> Result<(), Failure> {
        ticket.peer.check()?;
        let caller = patient(|| self.caller(&ticket.headers, &ticket.peer)).await?;
        ticket.rule.map_or(Ok(()), |rule| caller.allowed(rule))?;
        if caller.principal != ticket.caller.principal || caller.customer != ticket.caller.customer {
            let failure = Failure::new(Reason::PermissionDenied, "the credential is another's by now");
            return Err(failure.delivered(Delivered::No));
        }
        Ok(())
    }

    /// Logs a refusal now and then: who calls too often must not fill the logs as well.
    fn refused(&self, failure: &Failure, rpc: &str, caller: Option<&Caller>) {
        let now = Instant::now();
        // Nothing panics while it is held.
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Finds out who calls. That too many others wait for a key says nothing against whoever was let in: it is tried again for
/// a while, within which those who wait have had their answer.
async fn patient<T, F: Future<Output = Result<T, Unknown>>>(find: impl Fn() -> F) -> Result<T, Unknown> {
    for _ in 0..BUSY {
        match find().await {
            Err(Unknown::Busy) => sleep(PAUSE).await,
            found => return found,
        }
    }
    find().await
}

/// Every rpc, for those who call on one connection and are let in.
pub(super) struct Guarded {
    pub(super) rpcs: Rpcs,
    pub(super) guard: Option<Arc<Guard>>,
    pub(super) peer: Arc<Peer>,
}

impl<B> Service<http::Request<Measured<B>>> for Guarded
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future =
        Either<Answering<B>, Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>>;

    fn call(&self, request: http::Request<Measured<B>>) -> Self::Future {
        let Guarded { rpcs, guard, peer } = self;
        if let Err(failure) = peer.check() {
            return Either::Right(Box::pin(async move { Ok(status(failure).into_http()) }));
        }
        let path = request.uri().path();
        let way = guard.as_ref().map_or(Way::Open, |guard| guard.way(path));
        // Where callers have to be known, those who need not be share a part of what requests may hold.
        if guard.is_some()
            && matches!(way, Way::Open)
            && let Err(failure) = request.body().intake().charge().unknown()
        {
            return Either::Right(Box::pin(async move { Ok(status(failure).into_http()) }));
        }
        let origin = Origin::new(peer.clone(), request.body().intake().arrival());
        match (guard, way) {
            (Some(guard), Way::Known | Way::Rule(_) | Way::Closed) => {
                Either::Right(Box::pin(known(guard.clone(), way, rpcs.clone(), origin, request)))
            }
            _ if path.starts_with(HEALTH) || path.starts_with(REFLECTION) => {
                Either::Right(Box::pin(leaving(rpcs.clone(), origin, request, true)))
            }
            // A watch of somebody who is not known ends with the certificate that let the connection in.
            _ if peer.certified() && rule(path).is_some_and(|rule| rule.streams) => {
                Either::Right(Box::pin(leaving(rpcs.clone(), origin, request, false)))
            }
            _ => Either::Left(rpcs.call(origin, request)),
        }
    }
}

/// Answers a known caller.
async fn known<B>(
    guard: Arc<Guard>,
    way: Way,
    rpcs: Rpcs,
    origin: Origin,
    request: http::Request<Measured<B>>,
) -> Result<http::Response<Body>, Infallible>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
{
    let (caller, held) = match guard.admit(request.headers(), &origin.peer, way).await {
        Ok(admitted) => admitted,
        Err(failure) => return Ok(status(failure).into_http()),
    };
    if let Err(failure) = request.body().intake().charge().owned(caller.bytes()) {
        return Ok(status(failure).into_http());
    }
    let rule = match way {
        Way::Rule(rule) => Some(rule),
        Way::Open | Way::Known | Way::Closed => None,
    };
    let ends = rule.is_none_or(|rule| rule.streams).then(|| {
        let (headers, peer) = (credentials(request.headers()), origin.peer.clone());
        let ticket = Ticket { rule, caller: caller.clone(), headers, peer: peer.clone(), guard };
        end(Some(ticket), peer, rule.is_none())
    });
    let response = rpcs.call(origin.of(caller, held.clone()), request).await?;
    Ok(response.map(|body| Body::new(Vigil::over(body, Some(held), ends))))
}

/// Answers with a stream that ends when its connection has to be left.
async fn leaving<B>(
    rpcs: Rpcs,
    origin: Origin,
    request: http::Request<Measured<B>>,
    moves: bool,
) -> Result<http::Response<Body>, Infallible>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
{
    let peer = origin.peer.clone();
    let response = rpcs.call(origin, request).await?;
    Ok(response.map(|body| Body::new(Vigil::over(body, None, Some(end(None, peer, moves))))))
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
                if looks.get() <= busy { Err(Unknown::Busy) } else { Ok(looks.get()) }
            })
        };
        assert_eq!(find(5).await, Ok(6));
        looks.set(0);
        let begun = Instant::now();
        assert_eq!(find(u32::MAX).await, Err(Unknown::Busy), "not for ever");
        assert_eq!(begun.elapsed(), BUSY * PAUSE);
        let stale = patient(|| async { Err::<(), _>(Unknown::Stale) }).await;
        assert_eq!((stale, begun.elapsed()), (Err(Unknown::Stale), BUSY * PAUSE), "at once");
    }
}
