//! The metrics of the memory budget. Must not decide anything.

use std::sync::atomic::Ordering;

use telemetry::{Exposition, Source};

use super::{Inner, MemoryBudget, StreamKind};

impl Source for MemoryBudget {
    fn collect(&self, page: &mut Exposition) {
        let Inner { size, bytes, streams, connections, callers, .. } = &*self.0;
        let help =
            "Bytes buffered by requests while they are read and processed, with the overhead of each call.";
        page.gauge("gateway_request_bytes", help, &[], bytes.share.held() as f64);
        let help = "Limit of gateway_request_bytes (GW_MAX_BUFFERED_BYTES).";
        page.gauge("gateway_request_bytes_limit", help, &[], size.all as f64);
        let help = "Bytes of responses that their clients have not read.";
        page.gauge("gateway_answer_bytes", help, &[], bytes.share.unread() as f64);
        let help = "Limit of gateway_answer_bytes: beyond it new calls are refused.";
        page.gauge("gateway_answer_bytes_limit", help, &[], size.answers as f64);
        let help = "Requests shed because a share of the memory budget was full, by share.";
        for (share, count) in [("process", &bytes.refused), ("connection", connections), ("caller", callers)]
        {
            let count = count.load(Ordering::Relaxed);
            page.counter("gateway_request_bytes_shed_total", help, &[("share", share)], count);
        }
        for stream in StreamKind::ALL {
            let (bound, label) = (&streams[stream as usize], [("kind", stream.label())]);
            let help = "Open health watches and reflection streams.";
            page.gauge("gateway_open_streams", help, &label, bound.share.held() as f64);
            let help = "Refused health watches and reflection streams.";
            let refused = bound.refused.load(Ordering::Relaxed);
            page.counter("gateway_open_streams_refused_total", help, &label, refused);
        }
    }
}
