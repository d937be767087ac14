//! Traces over OTLP. Sampling is decided once, when a call begins; a call that is not traced has an empty span, which
//! costs nothing. Spans are passed explicitly: no lookups in threads or tasks. Must not depend on what a span is about.

mod export;
mod settings;
mod transport;

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use opentelemetry::trace::{
    Link, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use export::Processor;
pub use export::SpanMetrics;
pub use settings::Options;
use transport::Transport;

/// The error if traces cannot be sent.
const UNSENT: &str = "traces cannot be sent (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_CERTIFICATE)";
/// Time limit for sending the remaining spans at the end.
const FLUSH: Duration = Duration::from_secs(3);

/// Starts spans, or does nothing if tracing is off. Clones share it.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

struct Inner {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    tally: Arc<SpanMetrics>,
    share: f64,
    as_parent: bool,
}

/// A span of a traced call; empty if the call is not traced. It ends by `end`, or when its last clone is dropped.
#[derive(Clone, Default)]
pub struct Span(Option<Arc<Open>>);

struct Open {
    context: Context,
    tracer: SdkTracer,
}

/// The kind of a span, as in OpenTelemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanRole {
    /// Serves a call.
    Server,
    /// Makes a call and waits for it.
    Client,
    /// Publishes a message.
    Producer,
    /// Processes a message.
    Consumer,
    /// Internal work.
    Internal,
}

impl From<SpanRole> for SpanKind {
    fn from(kind: SpanRole) -> SpanKind {
        match kind {
            SpanRole::Server => SpanKind::Server,
            SpanRole::Client => SpanKind::Client,
            SpanRole::Producer => SpanKind::Producer,
            SpanRole::Consumer => SpanKind::Consumer,
            SpanRole::Internal => SpanKind::Internal,
        }
    }
}

impl Options {
    /// Checks whether traces could be sent, without sending any.
    ///
    /// # Errors
    ///
    /// The first variable with an invalid value, by its name, or certificates that cannot be used.
    pub fn check(&self) -> anyhow::Result<()> {
        let Some(settings) = self.read()? else { return Ok(()) };
        Transport::open(&settings).map(drop).context(UNSENT)
    }
}

impl Tracer {
    /// Starts tracing if the options name an endpoint.
    ///
    /// # Errors
    ///
    /// As for [`Options::check`]: a variable has an invalid value, or the certificates cannot be used. A collector that
    /// cannot be reached is no error: spans are then lost, and counted as failed.
    pub fn start(options: &Options, service: &'static str) -> anyhow::Result<Tracer> {
        let Some(settings) = options.read()? else { return Ok(Tracer::default()) };
        let transport = Transport::open(&settings).context(UNSENT)?;
        tracing::info!(endpoint = transport.endpoint(), share = settings.share, "tracing is on");
        let tally = Arc::new(SpanMetrics::default());
        let name = settings.service.clone().unwrap_or_else(|| service.to_owned());
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Processor::start(&settings, transport, tally.clone()))
            // Every span that is started has already been sampled.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(Resource::builder().with_service_name(name).build())
            .build();
        let tracer = provider.tracer("order-gateway");
        let (share, as_parent) = (settings.share, settings.as_parent);
        Ok(Tracer(Some(Arc::new(Inner { provider, tracer, tally, share, as_parent }))))
    }

    /// The metrics of spans; empty if tracing is off.
    pub fn metrics(&self) -> Arc<SpanMetrics> {
        self.0.as_ref().map(|inner| inner.tally.clone()).unwrap_or_default()
    }

    /// Whether tracing is on.
    pub fn on(&self) -> bool {
        self.0.is_some()
    }

    /// The span of an incoming call, if it is sampled: a child of its caller's span if `parent`, a W3C traceparent,
    /// names one. Its name is made only then.
    pub fn call<N: Into<Cow<'static, str>>>(
        &self,
        name: impl FnOnce() -> N,
        parent: Option<&str>,
        state: Option<&str>,
    ) -> Span {
        let Some(inner) = &self.0 else { return Span::default() };
        let parent = parent.and_then(|parent| context_of(parent, state));
        let traced = match &parent {
            Some(parent) if inner.as_parent => parent.is_sampled(),
            Some(_) | None => chosen(inner.share),
        };
        if !traced {
            return Span::default();
        }
        let context =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        open(&inner.tracer, SpanBuilder::from_name(name()).with_kind(SpanKind::Server), &context)
    }

    /// The span of work requested by another service, if that is traced.
    pub fn follow(&self, name: impl Into<Cow<'static, str>>, kind: SpanRole, parent: Option<&str>) -> Span {
        let (Some(inner), Some(parent)) = (&self.0, parent.and_then(|parent| context_of(parent, None)))
        else {
            return Span::default();
        };
        if !parent.is_sampled() {
            return Span::default();
        }
        let builder = SpanBuilder::from_name(name).with_kind(kind.into());
        open(&inner.tracer, builder, &Context::new().with_remote_span_context(parent))
    }

    /// The span of work caused by a call that does not wait for it, if that is traced: the root of a new trace, with a
    /// link.
    pub fn linked(&self, name: impl Into<Cow<'static, str>>, kind: SpanRole, cause: Option<&str>) -> Span {
        let (Some(inner), Some(cause)) = (&self.0, cause.and_then(|cause| context_of(cause, None))) else {
            return Span::default();
        };
        if !cause.is_sampled() {
            return Span::default();
        }
        let link = Link::new(cause, Vec::new(), 0);
        let builder = SpanBuilder::from_name(name).with_kind(kind.into()).with_links(vec![link]);
        open(&inner.tracer, builder, &Context::new())
    }

    /// Sends the remaining spans. Blocks for at most 3 s.
    pub fn stop(&self) {
        if let Some(inner) = &self.0
            && let Err(error) = inner.provider.shutdown_with_timeout(FLUSH)
        {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

impl Span {
    /// Whether the call is traced.
    pub fn traced(&self) -> bool {
        self.0.is_some()
    }

    /// A child span.
    pub fn child(&self, name: impl Into<Cow<'static, str>>, kind: SpanRole) -> Span {
        let Some(span) = &self.0 else { return Span::default() };
        open(&span.tracer, SpanBuilder::from_name(name).with_kind(kind.into()), &span.context)
    }

    /// A child span that is already over.
    pub fn past(&self, name: &'static str, from: SystemTime, to: SystemTime, attributes: Vec<KeyValue>) {
        let Some(span) = &self.0 else { return };
        let builder = SpanBuilder::from_name(name).with_start_time(from).with_attributes(attributes);
        let mut past = span.tracer.build_with_context(builder, &span.context);
        opentelemetry::trace::Span::end_with_timestamp(&mut past, to);
    }

    /// Sets an attribute.
    pub fn say(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &self.0 {
            span.context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Sets an attribute to an id, which is formatted only if the span is traced.
    pub fn note(&self, key: &'static str, id: &(impl Display + ?Sized)) {
        if self.traced() {
            self.say(key, id.to_string());
        }
    }

    /// Sets the span's status to error.
    pub fn fail(&self, why: impl Into<Cow<'static, str>>) {
        if let Some(span) = &self.0 {
            span.context.span().set_status(Status::Error { description: why.into() });
        }
    }

    /// Ends the span.
    pub fn end(&self) {
        if let Some(span) = &self.0 {
            span.context.span().end();
        }
    }

    /// The W3C traceparent for the next service.
    pub fn parent(&self) -> Option<String> {
        let span = self.0.as_ref()?;
        let context = span.context.span().span_context().clone();
        Some(format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags()))
    }
}

/// An attribute.
pub fn attribute(key: &'static str, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(key, value)
}

/// The trace id of a W3C traceparent.
pub fn trace_id(parent: &str) -> Option<&str> {
    parent.split('-').nth(1).filter(|id| id.len() == 32)
}

fn open(tracer: &SdkTracer, builder: SpanBuilder, parent: &Context) -> Span {
    let span = tracer.build_with_context(builder, parent);
    Span(Some(Arc::new(Open { context: Context::new().with_span(span), tracer: tracer.clone() })))
}

/// Samples at random; a caller that wants another ratio decides itself.
fn chosen(share: f64) -> bool {
    share >= 1.0 || (share > 0.0 && fastrand::f64() < share)
}

/// Parses `version-trace-parent-flags`, which was checked on arrival.
fn context_of(parent: &str, state: Option<&str>) -> Option<SpanContext> {
    let mut parts = parent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
    let state = state.and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let context = SpanContext::new(trace, span, flags, true, state);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn tracer(sampler: &str, share: f64) -> Tracer {
        let options = Options {
            // Nothing listens there: spans are created all the same.
            otel_exporter_otlp_endpoint: Some("http://127.0.0.1:9".to_owned()),
            otel_traces_sampler: Some(sampler.to_owned()),
            otel_traces_sampler_arg: Some(share.to_string()),
            ..Options::default()
        };
        Tracer::start(&options, "test").unwrap()
    }

    #[tokio::test]
    async fn a_callers_choice_goes_first_where_the_sampler_says_so() {
        let tracer = tracer("parentbased_traceidratio", 0.0);
        assert!(tracer.call(|| "a", Some(SAMPLED), None).traced());
        assert!(!tracer.call(|| "a", Some(UNSAMPLED), None).traced());
        assert!(!tracer.call(|| "a", None, None).traced());
        let all = super::tests::tracer("always_on", 0.0);
        assert!(all.call(|| "a", Some(UNSAMPLED), None).traced());
    }

    #[tokio::test]
    async fn a_trace_goes_on_under_its_callers_id() {
        let span = tracer("parentbased_always_on", 1.0).call(|| "a", Some(SAMPLED), Some("vendor=1"));
        let parent = span.child("b", SpanRole::Client).parent().unwrap();
        assert_eq!(trace_id(&parent), trace_id(SAMPLED));
        assert!(parent.ends_with("-01") && parent != span.parent().unwrap());
    }

    #[tokio::test]
    async fn work_for_a_call_that_is_not_traced_is_not_either() {
        let tracer = tracer("always_on", 1.0);
        for parent in [None, Some(UNSAMPLED), Some("nonsense")] {
            assert!(!tracer.follow("a", SpanRole::Server, parent).traced());
            assert!(!tracer.linked("a", SpanRole::Consumer, parent).traced());
        }
    }

    #[tokio::test]
    async fn the_options_are_checked_within_a_task_whether_they_are_good_or_bad() {
        let good = Options {
            otel_exporter_otlp_endpoint: Some("http://127.0.0.1:9".to_owned()),
            ..Options::default()
        };
        good.check().unwrap();
        let bad = Options {
            otel_exporter_otlp_endpoint: Some("https://127.0.0.1:9".to_owned()),
            otel_exporter_otlp_protocol: Some("http/protobuf".to_owned()),
            otel_exporter_otlp_certificate: Some(
                concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").to_owned(),
            ),
            ..Options::default()
        };
        let refused = format!("{:#}", bad.check().unwrap_err());
        assert!(refused.contains("OTEL_EXPORTER_OTLP_CERTIFICATE"), "{refused}");
    }

    #[test]
    fn without_an_endpoint_nothing_is_traced() {
        assert!(!Tracer::start(&Options::default(), "test").unwrap().on());
    }
}
