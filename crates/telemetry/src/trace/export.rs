//! Exports ended spans: each is counted as exported, failed or dropped, and failures are logged. Must not depend on the
//! transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};

use super::settings::Settings;
use super::transport::Transport;
use crate::{Counter, Exposition, Source};

/// Counts of spans by outcome.
#[derive(Debug, Default)]
pub struct SpanMetrics {
    exported: Counter,
    failed: Counter,
    dropped: Counter,
    /// Spans queued or being sent.
    waiting: AtomicUsize,
}

/// Queues ended spans while there is room.
#[derive(Debug)]
pub(super) struct Processor {
    batches: BatchSpanProcessor,
    room: usize,
    tally: Arc<SpanMetrics>,
}

#[derive(Debug)]
struct Exporter {
    transport: Transport,
    resource: ResourceAttributesWithSchema,
    tally: Arc<SpanMetrics>,
}

impl Processor {
    pub(super) fn start(settings: &Settings, transport: Transport, tally: Arc<SpanMetrics>) -> Processor {
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue)
            .with_max_export_batch_size(settings.batch)
            .with_scheduled_delay(settings.delay)
            .build();
        let exporter =
            Exporter { transport, resource: ResourceAttributesWithSchema::default(), tally: tally.clone() };
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        Processor { batches, room: settings.queue, tally }
    }
}

impl SpanProcessor for Processor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    /// The library drops spans that exceed its queue without a metric of them, so we never exceed it:
    /// <https://github.com/open-telemetry/opentelemetry-rust/pull/3609>
    fn on_end(&self, span: SpanData) {
        if self.tally.waiting.fetch_add(1, Ordering::Relaxed) >= self.room {
            self.tally.waiting.fetch_sub(1, Ordering::Relaxed);
            self.tally.dropped.increment();
            return tracing::warn!("spans are dropped: the export queue is full (OTEL_BSP_MAX_QUEUE_SIZE)");
        }
        self.batches.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let sent = self.transport.send(ExportTraceServiceRequest { resource_spans });
        self.tally.waiting.fetch_sub(count, Ordering::Relaxed);
        let count = count as u64;
        let (rejected, why) = match &sent {
            Ok(answer) => (answer.rejected.min(count), answer.why.as_str()),
            Err(error) => (count, error.as_str()),
        };
        self.tally.exported.add(count - rejected);
        self.tally.failed.add(rejected);
        if !why.is_empty() || rejected > 0 {
            let endpoint = self.transport.endpoint();
            tracing::warn!(endpoint, lost = rejected, error = why, "the collector did not accept all spans");
        }
        sent.map(drop).map_err(OTelSdkError::InternalFailure)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

impl Source for SpanMetrics {
    fn collect(&self, page: &mut Exposition) {
        let (name, help) = ("trace_spans_total", "Ended spans of traced calls, by outcome of their export.");
        for (outcome, count) in
            [("exported", &self.exported), ("failed", &self.failed), ("dropped", &self.dropped)]
        {
            page.counter(name, help, &[("outcome", outcome)], count.get());
        }
    }
}
