//! Payloads of a subscription as messages of the contract. One that violates it is left out, counted and logged, and ends
//! nothing. Must not depend on where payloads come from.

use std::sync::Arc;

use bytes::Bytes;
use catalog::Route;
use telemetry::LineQuota;
use wire::nestjs;

use crate::metrics::CatalogMetrics;

/// Reads the payloads of one route.
pub(super) struct Decoder {
    route: Arc<Route>,
    nest: bool,
    metrics: CatalogMetrics,
    lines: LineQuota,
}

impl Decoder {
    /// Of a route; `nest`: with the envelope of NestJS.
    pub(super) fn new(route: Arc<Route>, nest: bool, metrics: CatalogMetrics) -> Decoder {
        Decoder { route, nest, metrics, lines: LineQuota::default() }
    }

    /// The message in the protobuf encoding, if the payload is one.
    pub(super) fn read(&self, subject: &str, payload: &Bytes) -> Option<Vec<u8>> {
        let payload = if self.nest { nestjs::event_payload(payload) } else { payload };
        let read = self.route.codec.reply(payload);
        read.inspect_err(|mismatch| {
            if let Some(metrics) = self.metrics.of(&self.route) {
                metrics.skipped.increment();
            }
            let route = self.route.path.as_str();
            if self.lines.take() {
                tracing::warn!(route, subject, %mismatch, "a message violates the contract; subscribers do not get it");
            }
        })
        .ok()
    }
}
