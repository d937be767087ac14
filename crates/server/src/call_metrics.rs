//! Call metrics and access log: counts, results and durations per rpc, and the log line and span of each call. Each
//! thread has its own metrics. Must not change the response.

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::sync::{Arc, Weak};

use admission::Cause;
use catalog::{Catalog, Rpc};
use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use telemetry::{Counter, Exposition, Histogram, LineQuota, Source, Span, Tracer};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use wire::failure::{code_name, ours};
use wire::reason::label;

use super::headers::{GRPC_STATUS, REQUEST_ID, TRACEPARENT, TRACESTATE, find};

/// The label of all paths that are neither an rpc of the catalog nor of health.
const OTHER: &str = "other";
/// The rpcs of health, and whether each is streaming.
const HEALTH: [(&str, bool); 2] =
    [("grpc.health.v1.Health/Check", false), ("grpc.health.v1.Health/Watch", true)];

/// Maximum length of a request id or a traceparent that is kept for the log, in bytes: no valid one is longer.
const KEPT: usize = 64;

/// The call metrics of one thread: of every rpc that a catalog or a call has. Clones share them.
#[derive(Clone)]
pub struct CallMetrics(Arc<All>);

struct All {
    /// By path; some are gone.
    rpcs: Mutex<HashMap<String, Weak<RpcMetrics>>>,
    health: [Arc<RpcMetrics>; 2],
    other: Arc<RpcMetrics>,
    strange: NonCalls,
    tracer: Tracer,
    /// The reasons that services with code have beside the gateway's.
    reasons: &'static [&'static str],
}

/// The call metrics of one catalog's rpcs.
pub(super) struct CatalogCalls {
    /// By path.
    accounts: HashMap<String, Arc<RpcMetrics>, RandomState>,
    all: CallMetrics,
}

/// Requests that are not gRPC calls.
#[derive(Default)]
struct NonCalls {
    methods: Counter,
    types: Counter,
}

/// The metrics of one rpc.
struct RpcMetrics {
    /// `service/rpc`.
    name: Arc<str>,
    streams: bool,
    /// Whether calls are traced; probes and reflection are not.
    traced: bool,
    begun: Counter,
    ended: Counter,
    ok: Counter,
    times: Histogram,
    /// Failed calls by code and reason, both of which have a bounded set of values.
    failed: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    lines: LineQuota,
}

/// One call, until it is recorded. If it is dropped before that, the caller has cancelled it.
pub(super) struct CallRecord {
    account: Arc<RpcMetrics>,
    since: Instant,
    span: Span,
    /// The caller's request id, for the log.
    request_id: Option<HeaderValue>,
    parent: Option<HeaderValue>,
    known: Option<CallIds>,
    reasons: &'static [&'static str],
    open: bool,
}

/// The ids of a successful response, for the log: an extension of the response, if the log level includes it.
#[derive(Debug, Clone)]
pub struct CallIds {
    request_id: Option<String>,
    order_id: Option<String>,
}

/// The result of a call that failed.
struct End {
    code: Code,
    reason: &'static str,
    request_id: Option<String>,
    delivered: Option<String>,
    order_id: Option<String>,
    message: String,
    /// The cause, which is not sent to the caller.
    cause: Option<String>,
}

impl CallMetrics {
    /// New metrics, all zero. `reasons`: those that services with code have beside the gateway's; others are counted as
    /// one.
    pub fn new(tracer: Tracer, reasons: &'static [&'static str]) -> CallMetrics {
        let health = HEALTH.map(|(name, streams)| Arc::new(RpcMetrics::new(name, streams, false)));
        let other = Arc::new(RpcMetrics::new(OTHER, true, false));
        let (rpcs, strange) = (Mutex::default(), NonCalls::default());
        CallMetrics(Arc::new(All { rpcs, health, other, strange, tracer, reasons }))
    }

    /// The metrics of a catalog's rpcs: those that are known go on.
    pub(super) fn of(&self, catalog: &Catalog) -> CatalogCalls {
        let mut known = self.0.rpcs.lock();
        known.retain(|_, account| account.strong_count() > 0);
        let mut account = |rpc: &Arc<Rpc>| {
            let before = known.get(&rpc.path).and_then(Weak::upgrade);
            let account = before.filter(|account| account.streams == rpc.streams()).unwrap_or_else(|| {
                let account = Arc::new(RpcMetrics::new(rpc.name(), rpc.streams(), true));
                known.insert(rpc.path.clone(), Arc::downgrade(&account));
                account
            });
            (rpc.path.clone(), account)
        };
        let health = self.0.health.iter().map(|account| (format!("/{}", account.name), account.clone()));
        let accounts = catalog.client_rpcs().map(&mut account).chain(health).collect();
        CatalogCalls { accounts, all: self.clone() }
    }
}

impl CatalogCalls {
    /// Counts a request that is not a gRPC call.
    pub(super) fn strange(&self, code: StatusCode) {
        let NonCalls { methods, types } = &self.all.0.strange;
        if code == StatusCode::METHOD_NOT_ALLOWED { methods.increment() } else { types.increment() }
    }

    /// Starts the record of a call that has just arrived.
    pub(super) fn open(&self, path: &str, headers: &HeaderMap, since: Instant) -> CallRecord {
        let account = self.accounts.get(path).unwrap_or(&self.all.0.other).clone();
        account.begun.increment();
        // The values are slices of the connection's read buffer, which a stream would keep alive while it is open.
        let kept = |value: Option<&HeaderValue>| {
            let value = value.filter(|value| value.len() <= KEPT)?;
            if account.streams { HeaderValue::from_bytes(value.as_bytes()).ok() } else { Some(value.clone()) }
        };
        let [request_id, parent] = find(headers, [&REQUEST_ID, &TRACEPARENT]).map(kept);
        let traced = self.all.0.tracer.on() && account.traced;
        let span = if traced { self.span(&account.name, headers) } else { Span::default() };
        let reasons = self.all.0.reasons;
        CallRecord { account, since, span, request_id, parent, known: None, reasons, open: true }
    }

    fn span(&self, name: &Arc<str>, headers: &HeaderMap) -> Span {
        let text = |name: &HeaderName| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let parent = text(&TRACEPARENT).filter(|parent| super::metadata::is_traceparent(parent));
        let span = self.all.0.tracer.call(|| name.to_string(), parent, text(&TRACESTATE));
        if !span.traced() {
            return span;
        }
        if let Some((service, method)) = name.split_once('/') {
            span.say("rpc.system", "grpc");
            span.say("rpc.service", service.to_owned());
            span.say("rpc.method", method.to_owned());
        }
        if let Some(id) = text(&REQUEST_ID).filter(|id| super::metadata::is_id(id)) {
            span.say("request.id", id.to_owned());
        }
        span
    }
}

impl RpcMetrics {
    fn new(name: &str, streams: bool, traced: bool) -> RpcMetrics {
        RpcMetrics {
            name: name.into(),
            streams,
            traced,
            begun: Counter::default(),
            ended: Counter::default(),
            ok: Counter::default(),
            times: Histogram::times(),
            failed: Mutex::default(),
            lines: LineQuota::default(),
        }
    }

    fn failed(&self) -> parking_lot::MutexGuard<'_, BTreeMap<(&'static str, &'static str), u64>> {
        self.failed.lock()
    }
}

impl CallRecord {
    /// The call's span.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Sets the ids of the response.
    pub(super) fn about(&mut self, known: Option<&CallIds>) {
        self.known = known.cloned();
    }

    /// Reads trailers; if they contain a status, the call has ended.
    pub(super) fn read(&mut self, trailers: &HeaderMap) {
        if let Some(code) = trailers.get(&GRPC_STATUS) {
            self.over(code, trailers, None);
        }
    }

    /// Ends the call with this code and these headers or trailers. `status` is their origin, if available: it contains
    /// the cause.
    pub(super) fn over(&mut self, code: &HeaderValue, headers: &HeaderMap, status: Option<&Status>) {
        if code == "0" {
            return self.close(None);
        }
        let end = match status {
            Some(status) => End::of(status, self.reasons),
            None => Status::from_header_map(headers)
                .map_or_else(End::strange, |status| End::of(&status, self.reasons)),
        };
        self.close(Some(end));
    }

    fn close(&mut self, failed: Option<End>) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let took = self.since.elapsed();
        let account = &self.account;
        account.ended.increment();
        if !account.streams {
            account.times.observe_time(took);
        }
        match &failed {
            None => account.ok.increment(),
            Some(end) => *account.failed().entry((code_name(end.code), end.reason)).or_default() += 1,
        }
        self.log(failed.as_ref(), took);
        let code = failed.as_ref().map_or(Code::Ok, |end| end.code);
        self.span.say("rpc.grpc.status_code", i64::from(code as i32));
        if let Some(end) = failed {
            self.span.say("error.type", if end.reason.is_empty() { code_name(code) } else { end.reason });
            for (key, id) in [("request.id", end.request_id), ("order.id", end.order_id)] {
                id.into_iter().for_each(|id| self.span.say(key, id));
            }
            self.span.fail(end.message);
        }
        self.span.end();
    }

    /// Logs the call at debug level; at warn level, and rate-limited, if the failure is not the caller's fault. This is
    /// the only log line of a call: code on the way returns its cause instead of logging. Unknown fields are omitted.
    fn log(&self, failed: Option<&End>, took: std::time::Duration) {
        let warns = failed.is_some_and(|end| ours(end.code)) && self.account.lines.take();
        if !warns && !CallIds::wanted() {
            return;
        }
        let text = |value: &Option<HeaderValue>| value.as_ref()?.to_str().ok().map(str::to_owned);
        let header = text(&self.request_id).filter(|id| super::metadata::is_id(id));
        let request_id = failed.and_then(|end| end.request_id.clone()).or(header);
        let parent = self.span.parent().or_else(|| text(&self.parent));
        let trace_id = parent.as_deref().and_then(telemetry::trace::trace_id);
        let (method, took) = (&*self.account.name, took.as_micros() as u64);
        let Some(end) = failed else {
            let known = self.known.as_ref();
            let request_id = known.and_then(|known| known.request_id.clone()).or(request_id);
            let order_id = known.and_then(|known| known.order_id.as_deref());
            tracing::debug!(target: "gateway::call", method, code = "OK", took_us = took, request_id, trace_id, order_id);
            return;
        };
        let (code, reason) = (code_name(end.code), Some(end.reason).filter(|reason| !reason.is_empty()));
        let End { delivered, order_id, cause, .. } = end;
        if warns {
            tracing::warn!(target: "gateway::call", method, code, reason, delivered, took_us = took, request_id, trace_id, order_id, cause, "the call failed");
        } else {
            tracing::debug!(target: "gateway::call", method, code, reason, delivered, took_us = took, request_id, trace_id, order_id, cause, "the call failed");
        }
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        if self.open {
            self.close(Some(End::bare(Code::Cancelled, "the caller cancelled the call")));
        }
    }
}

impl CallIds {
    /// Whether every call is logged.
    pub fn wanted() -> bool {
        tracing::enabled!(target: "gateway::call", tracing::Level::DEBUG)
    }

    /// The ids of an order and of the request for it.
    pub fn order(order_id: &str, request_id: Option<String>) -> CallIds {
        let request_id = request_id.filter(|id| !id.is_empty());
        CallIds { request_id, order_id: Some(order_id.to_owned()) }
    }
}

impl End {
    fn of(status: &Status, reasons: &[&'static str]) -> End {
        let info = status.get_details_error_info();
        let kept = |key| info.as_ref().and_then(|info| info.metadata.get(key).cloned());
        End {
            code: status.code(),
            reason: info.as_ref().map_or("", |info| label(reasons, &info.domain, &info.reason)),
            request_id: kept("request_id"),
            delivered: kept("delivered"),
            order_id: kept("order_id"),
            message: status.message().to_owned(),
            cause: status.source().and_then(|source| source.downcast_ref::<Cause>()).map(Cause::to_string),
        }
    }

    fn strange() -> End {
        End::bare(Code::Unknown, "the status cannot be parsed")
    }

    /// A result with a code and a message only.
    fn bare(code: Code, message: &str) -> End {
        let message = message.to_owned();
        End { code, reason: "", request_id: None, delivered: None, order_id: None, message, cause: None }
    }
}

impl Source for CallMetrics {
    fn collect(&self, page: &mut Exposition) {
        let All { rpcs, health, other, strange, .. } = &*self.0;
        let known: Vec<_> = rpcs.lock().values().filter_map(Weak::upgrade).collect();
        known.iter().chain(health).chain([other]).for_each(|account| account.tell(page));
        let help = "Requests that were not gRPC calls, by the HTTP status they were refused with.";
        for (code, count) in [("405", &strange.methods), ("415", &strange.types)] {
            page.counter("gateway_http_refused_total", help, &[("code", code)], count.get());
        }
    }
}

impl RpcMetrics {
    fn tell(&self, page: &mut Exposition) {
        let method = ("method", &*self.name);
        let calls = "gateway_calls_total";
        let help = "Completed calls, by rpc, status code and reason.";
        page.counter(calls, help, &[method, ("code", "OK"), ("reason", "")], self.ok.get());
        for ((code, reason), count) in &*self.failed() {
            page.counter(calls, help, &[method, ("code", code), ("reason", reason)], *count);
        }
        // Reading `ended` first keeps the difference from becoming negative.
        let ended = self.ended.get();
        let in_flight = self.begun.get().saturating_sub(ended) as f64;
        page.gauge("gateway_calls_in_flight", "Calls in flight.", &[method], in_flight);
        if !self.streams {
            let help = "Duration of a unary call, from its headers to the end of its response.";
            page.histogram("gateway_call_duration_seconds", help, &[method], &self.times);
        }
    }
}

#[cfg(test)]
mod tests;
