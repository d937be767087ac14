//! What tracing costs: a system without tracing, one that traces 1 % of the calls, and one that traces all, in turns.
//! Must not read the traces.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::report::Report;
use super::turns::{Bench, PRODUCTS};
use crate::deployment::{self, Deployment};
use crate::load::{Kind, Load};

/// A collector that counts spans.
#[derive(Clone, Default)]
struct Collector(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.get_ref().resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

pub(super) async fn measure(bench: &Bench, off: &Deployment, report: &mut Report) -> anyhow::Result<()> {
    let (collector, listener) = (Collector::default(), TcpListener::bind("127.0.0.1:0").await?);
    let endpoint = format!("http://{}", listener.local_addr()?);
    let service = TraceServiceServer::new(collector.clone());
    tokio::spawn(
        Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let some = traced(&endpoint, "0.01").await?;
    let all = traced(&endpoint, "1").await?;
    for (kind, name) in [(Kind::Check, "CheckInventory"), (Kind::Create, "CreateOrder")] {
        let load = |deployment: &Deployment| deployment.watched(Load::of(kind, &deployment.url()));
        let loads = [("not traced", load(off)?), ("1 % traced", load(&some)?), ("all traced", load(&all)?)];
        let [none, some, all] = bench.turns(loads).await?;
        report.section(&format!("{name}, 64 concurrent calls, with tracing"), [&none, &some, &all]);
        report.ratio("rate, 1 % traced / not traced", some.rate().over(none.rate()), "at least 0.95");
        report.ratio("rate, all traced / not traced", all.rate().over(none.rate()), "");
    }
    cli::say!("the collector received {} spans", collector.0.load(Ordering::Relaxed));
    Ok(())
}

/// A system that samples this share of the calls.
async fn traced(endpoint: &str, share: &str) -> anyhow::Result<Deployment> {
    let nats = deployment::nats("").await?;
    deployment::stock(&nats, PRODUCTS).await?;
    let more = [
        "--otel-exporter-otlp-endpoint",
        endpoint,
        "--otel-traces-sampler",
        "traceidratio",
        "--otel-traces-sampler-arg",
        share,
    ];
    Deployment::with(nats, &more).await
}
