//! Accounts of calls: how often each rpc was called, how that ended and how long it took, and the line in the log and
//! the span of each. Each thread keeps its own books. Must never change what a caller is told.

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};

use admission::Cause;
use contract::failure::{code_name, label, ours};
use contract::route::{RPCS, Rpc};
use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use telemetry::{Count, Page, Quota, Source, Span, Spread, Tracer};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::name::{GRPC_STATUS, REQUEST_ID, TRACEPARENT, TRACESTATE, find};

/// What is neither an rpc of ours nor of health and reflection has one account.
const OTHER: Rpc = Rpc { name: "other", path: "", streams: true };
const HEALTH: [Rpc; 2] = [
    Rpc { name: "grpc.health.v1.Health/Check", path: "/grpc.health.v1.Health/Check", streams: false },
    Rpc { name: "grpc.health.v1.Health/Watch", path: "/grpc.health.v1.Health/Watch", streams: true },
];

/// Bytes of a request id, or of a trace's parent, that are kept for the log: no good one has more.
const KEPT: usize = 64;

/// The accounts of one thread. Clones share them.
#[derive(Clone)]
pub struct Books {
    accounts: Arc<HashMap<&'static str, Arc<Account>, RandomState>>,
    other: Arc<Account>,
    strange: Arc<Strange>,
    tracer: Tracer,
}

/// Requests that are no gRPC calls.
#[derive(Default)]
struct Strange {
    methods: Count,
    types: Count,
}

/// The account of one rpc.
struct Account {
    rpc: Rpc,
    /// Probes and reflection are not.
    traced: bool,
    begun: Count,
    ended: Count,
    ok: Count,
    times: Spread,
    /// By code and reason: there are only so many of both.
    failed: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    lines: Quota,
}

/// One call, until it is closed. One that is dropped before was left by its caller.
pub(super) struct Entry {
    account: Arc<Account>,
    since: Instant,
    span: Span,
    /// What the caller sent, for the log.
    request_id: Option<HeaderValue>,
    parent: Option<HeaderValue>,
    known: Option<Known>,
    open: bool,
}

/// What a good answer is about, for the log: an extension of the response, where the log has a line for it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    request_id: Option<String>,
    order_id: Option<String>,
}

/// How a call ended.
struct End {
    code: Code,
    reason: &'static str,
    request_id: Option<String>,
    delivered: Option<String>,
    order_id: Option<String>,
    message: String,
    /// What is behind it. It was not sent.
    cause: Option<String>,
}

impl Books {
    /// Empty ones.
    pub fn new(tracer: Tracer) -> Books {
        let account = |traced| move |rpc: &Rpc| (rpc.path, Arc::new(Account::new(*rpc, traced)));
        let accounts = RPCS.iter().map(account(true)).chain(HEALTH.iter().map(account(false)));
        let other = Arc::new(Account::new(OTHER, false));
        Books { accounts: Arc::new(accounts.collect()), other, strange: Arc::default(), tracer }
    }

    /// Counts a request that is no call.
    pub(super) fn strange(&self, code: StatusCode) {
        let Strange { methods, types } = &*self.strange;
        if code == StatusCode::METHOD_NOT_ALLOWED { methods.one() } else { types.one() }
    }

    /// Opens an entry for a call that came in now.
    pub(super) fn open(&self, path: &str, headers: &HeaderMap, since: Instant) -> Entry {
        let account = self.accounts.get(path).unwrap_or(&self.other).clone();
        account.begun.one();
        // The values are parts of what was read from the connection, which a stream would keep as long as it is open.
        let kept = |value: Option<&HeaderValue>| {
            let value = value.filter(|value| value.len() <= KEPT)?;
            if account.rpc.streams {
                HeaderValue::from_bytes(value.as_bytes()).ok()
            } else {
                Some(value.clone())
            }
        };
        let [request_id, parent] = find(headers, [&REQUEST_ID, &TRACEPARENT]).map(kept);
        let traced = self.tracer.on() && account.traced;
        let span = if traced { self.span(&account.rpc, headers) } else { Span::default() };
        Entry { account, since, span, request_id, parent, known: None, open: true }
    }

    fn span(&self, rpc: &Rpc, headers: &HeaderMap) -> Span {
        let text = |name: &HeaderName| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let parent = text(&TRACEPARENT).filter(|parent| super::accept::is_traceparent(parent));
        let span = self.tracer.call(rpc.name, parent, text(&TRACESTATE));
        if let Some((service, method)) = rpc.name.split_once('/') {
            span.say("rpc.system", "grpc");
            span.say("rpc.service", service);
            span.say("rpc.method", method);
        }
        if let Some(id) = text(&REQUEST_ID).filter(|id| super::accept::is_id(id)) {
            span.say("request.id", id.to_owned());
        }
        span
    }
}

impl Account {
    fn new(rpc: Rpc, traced: bool) -> Account {
        Account {
            rpc,
            traced,
            begun: Count::default(),
            ended: Count::default(),
            ok: Count::default(),
            times: Spread::times(),
            failed: Mutex::default(),
            lines: Quota::default(),
        }
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, BTreeMap<(&'static str, &'static str), u64>> {
        // Nothing panics while it is held.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The call's span.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Takes what the answer is about.
    pub(super) fn about(&mut self, known: Option<&Known>) {
        self.known = known.cloned();
    }

    /// Reads an answer's trailers: the call is over with those that have a status.
    pub(super) fn read(&mut self, trailers: &HeaderMap) {
        if let Some(code) = trailers.get(&GRPC_STATUS) {
            self.over(code, trailers, None);
        }
    }

    /// The call is over with this code, and these headers or trailers. `status` is what they were made of, if that is at
    /// hand: it knows its cause.
    pub(super) fn over(&mut self, code: &HeaderValue, headers: &HeaderMap, status: Option<&Status>) {
        if code == "0" {
            return self.close(None);
        }
        let end = match status {
            Some(status) => End::of(status),
            None => Status::from_header_map(headers).map_or_else(End::strange, |status| End::of(&status)),
        };
        self.close(Some(end));
    }

    fn close(&mut self, failed: Option<End>) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let took = self.since.elapsed();
        let account = &self.account;
        account.ended.one();
        if !account.rpc.streams {
            account.times.took(took);
        }
        match &failed {
            None => account.ok.one(),
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

    /// A line at debug; at warn, and a bounded number of them, where the failure is not the caller's. It is the only one
    /// about a call: whatever fails on the way hands its cause on. A field that nobody knows is left out.
    fn log(&self, failed: Option<&End>, took: std::time::Duration) {
        let warns = failed.is_some_and(|end| ours(end.code)) && self.account.lines.take();
        if !warns && !Known::wanted() {
            return;
        }
        let text = |value: &Option<HeaderValue>| value.as_ref()?.to_str().ok().map(str::to_owned);
        let header = text(&self.request_id).filter(|id| super::accept::is_id(id));
        let request_id = failed.and_then(|end| end.request_id.clone()).or(header);
        let parent = self.span.parent().or_else(|| text(&self.parent));
        let trace_id = parent.as_deref().and_then(telemetry::trace::trace_id);
        let (method, took) = (self.account.rpc.name, took.as_micros() as u64);
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

impl Drop for Entry {
    fn drop(&mut self) {
        if self.open {
            self.close(Some(End::bare(Code::Cancelled, "the caller left")));
        }
    }
}

impl Known {
    /// Whether the log has a line for each call.
    pub(super) fn wanted() -> bool {
        tracing::enabled!(target: "gateway::call", tracing::Level::DEBUG)
    }

    /// An order, which this request may have asked for.
    pub(super) fn order(order_id: &str, request_id: Option<String>) -> Known {
        let request_id = request_id.filter(|id| !id.is_empty());
        Known { request_id, order_id: Some(order_id.to_owned()) }
    }
}

impl End {
    fn of(status: &Status) -> End {
        let info = status.get_details_error_info();
        let kept = |key| info.as_ref().and_then(|info| info.metadata.get(key).cloned());
        End {
            code: status.code(),
            reason: info.as_ref().map_or("", |info| label(&info.domain, &info.reason)),
            request_id: kept("request_id"),
            delivered: kept("delivered"),
            order_id: kept("order_id"),
            message: status.message().to_owned(),
            cause: status.source().and_then(|source| source.downcast_ref::<Cause>()).map(Cause::to_string),
        }
    }

    fn strange() -> End {
        End::bare(Code::Unknown, "a status that cannot be read")
    }

    /// Nothing else is known.
    fn bare(code: Code, message: &str) -> End {
        let message = message.to_owned();
        End { code, reason: "", request_id: None, delivered: None, order_id: None, message, cause: None }
    }
}

impl Source for Books {
    fn tell(&self, page: &mut Page) {
        for account in self.accounts.values().chain([&self.other]) {
            account.tell(page);
        }
        let help = "Requests that were no gRPC calls, by the HTTP status that they were refused with.";
        for (code, count) in [("405", &self.strange.methods), ("415", &self.strange.types)] {
            page.count("gateway_http_refused_total", help, &[("code", code)], count.get());
        }
    }
}

impl Account {
    fn tell(&self, page: &mut Page) {
        let method = ("method", self.rpc.name);
        let calls = "gateway_calls_total";
        let help = "Calls that ended, by rpc, status code and reason.";
        page.count(calls, help, &[method, ("code", "OK"), ("reason", "")], self.ok.get());
        for ((code, reason), count) in &*self.failed() {
            page.count(calls, help, &[method, ("code", code), ("reason", reason)], *count);
        }
        // Read in this order, it never falls below zero.
        let ended = self.ended.get();
        let in_flight = self.begun.get().saturating_sub(ended) as f64;
        page.level("gateway_calls_in_flight", "Calls that have not ended.", &[method], in_flight);
        if !self.rpc.streams {
            let help = "Time of a unary call, from its headers to the end of its answer.";
            page.spread("gateway_call_duration_seconds", help, &[method], &self.times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{Failure, Reason};

    const PATH: &str = "/orders.v1.OrderService/GetOrder";
    const NAME: &str = "orders.v1.OrderService/GetOrder";

    fn page(books: &Books) -> Page {
        let mut page = Page::default();
        books.tell(&mut page);
        page
    }

    fn calls(books: &Books, code: &str, reason: &str) -> f64 {
        page(books).number("gateway_calls_total", &[("method", NAME), ("code", code), ("reason", reason)])
    }

    fn ends(books: &Books, failure: Failure) {
        let response = super::super::status(failure).into_http::<tonic::body::Body>();
        books.open(PATH, &HeaderMap::new(), Instant::now()).read(response.headers());
    }

    #[tokio::test]
    async fn each_end_is_counted_once_by_its_code_and_reason() {
        let books = Books::new(Tracer::default());
        let ok = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
        let mut entry = books.open(PATH, &HeaderMap::new(), Instant::now());
        assert_eq!(page(&books).number("gateway_calls_in_flight", &[("method", NAME)]), 1.0);
        entry.read(&HeaderMap::new());
        entry.read(&ok);
        drop(entry);
        ends(&books, Failure::new(Reason::NatsDisconnected, "away"));
        ends(&books, Failure { domain: "elsewhere".into(), ..Failure::new(Reason::Internal, "x") });
        drop(books.open(PATH, &HeaderMap::new(), Instant::now()));
        assert_eq!(calls(&books, "OK", ""), 1.0);
        assert_eq!(calls(&books, "UNAVAILABLE", "NATS_DISCONNECTED"), 1.0);
        assert_eq!(calls(&books, "INTERNAL", "OTHER"), 1.0);
        assert_eq!(calls(&books, "CANCELLED", ""), 1.0);
        assert_eq!(page(&books).number("gateway_calls_in_flight", &[("method", NAME)]), 0.0);
    }

    #[tokio::test]
    async fn what_callers_invent_opens_no_account() {
        let books = Books::new(Tracer::default());
        for path in ["/a.B/C", "/orders.v1.OrderService/Nothing", ""] {
            drop(books.open(path, &HeaderMap::new(), Instant::now()));
        }
        let labels = [("method", "other"), ("code", "CANCELLED"), ("reason", "")];
        assert_eq!(page(&books).number("gateway_calls_total", &labels), 3.0);
    }
}
