//! Traces as a collector receives them over OTLP: one trace from the call through NATS to the worker and its ledger.

use std::io::Write;
use std::sync::{Arc, Mutex};

use contract::orders::v1::CheckInventoryRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

use crate::harness::system::{System, new_order, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A span, and the service that sent it.
type Sent = (String, Span);

#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<Sent>>>);

/// A collector on its own port.
struct Collector {
    received: Received,
    options: telemetry::trace::Options,
    _serving: AbortOnDropHandle<()>,
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let name = attributes.iter().find(|attribute| attribute.key == "service.name");
            let service = match name.and_then(|name| name.value.clone()?.value) {
                Some(Value::StringValue(service)) => service,
                _ => String::new(),
            };
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn open() -> Collector {
        let (received, listener) = (Received::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let options = telemetry::trace::Options {
            otel_exporter_otlp_endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
            otel_traces_sampler: Some("parentbased_always_off".to_owned()),
            ..telemetry::trace::Options::default()
        };
        let service = TraceServiceServer::new(received.clone());
        let serving = tokio::spawn(async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Collector { received, options, _serving: AbortOnDropHandle::new(serving) }
    }

    /// A span by its service and name.
    fn find(&self, service: &str, name: &str) -> Option<Span> {
        let spans = self.received.0.lock().unwrap();
        spans.iter().find(|(from, span)| from == service && span.name == name).map(|(_, span)| span.clone())
    }

    async fn span(&self, service: &str, name: &str) -> Span {
        until(&format!("{name} of {service} came"), async || self.find(service, name).is_some()).await;
        self.find(service, name).unwrap()
    }

    async fn system(&self) -> System {
        let (gateway, worker) = (self.options.clone(), self.options.clone());
        System::builder()
            .stock("lamp", 5)
            .each_gateway(|config| config.traces = gateway)
            .each_worker(|config| config.traces = worker)
            .start()
            .await
    }
}

fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", PARENT.parse().unwrap());
    request
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(span: &Span, key: &str) -> Option<String> {
    match span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Asserts that one span is the direct parent of the other.
#[track_caller]
fn assert_below(above: &Span, below: &Span) {
    assert_eq!(hex(&below.trace_id), TRACE, "{}", below.name);
    assert_eq!(hex(&below.parent_span_id), hex(&above.span_id), "{} below {}", below.name, above.name);
}

#[tokio::test]
async fn one_trace_goes_from_the_call_through_nats_into_the_ledger() {
    let collector = Collector::open().await;
    let system = collector.system().await;
    system.orders().create_order(traced(new_order("lamp", 1).request)).await.unwrap();
    let call = collector.span("gateway", "orders.v1.OrderService/CreateOrder").await;
    assert_eq!(
        (hex(&call.trace_id), hex(&call.parent_span_id)),
        (TRACE.to_owned(), "00f067aa0ba902b7".to_owned())
    );
    assert_eq!(text(&call, "rpc.method").as_deref(), Some("CreateOrder"));
    for subject in ["check_inventory", "reserve_inventory"] {
        let sent = collector.span("gateway", &format!("send {subject}")).await;
        assert_below(&call, &sent);
        let worked = collector.span("inventory-worker", &format!("process {subject}")).await;
        assert_below(&sent, &worked);
        assert_eq!(text(&worked, "messaging.destination.name").as_deref(), Some(subject));
    }
    let worked = collector.span("inventory-worker", "process reserve_inventory").await;
    let append = collector.span("inventory-worker", "append to the ledger").await;
    assert_below(&worked, &append);
    assert_eq!(text(&append, "messaging.destination.name").as_deref(), Some("inventory.ledger"));
    let stored = collector.span("gateway", "publish order_created").await;
    assert_below(&call, &stored);
    // Consumed events have their own trace, with a link to the span that caused them.
    let bound = collector.span("inventory-worker", "process ORDERS").await;
    assert_ne!(hex(&bound.trace_id), TRACE);
    assert_eq!(hex(&bound.links[0].span_id), hex(&stored.span_id));
}

#[tokio::test]
async fn spans_name_the_order_and_the_request() {
    let collector = Collector::open().await;
    let system = collector.system().await;
    let wanted = traced(new_order("lamp", 1).id("my-order-3").request);
    let placed = system.orders().create_order(wanted).await.unwrap().into_inner().order.unwrap().order_id;
    let (gateway, worker) = ("gateway", "inventory-worker");
    for (service, name, order) in [
        (gateway, "orders.v1.OrderService/CreateOrder", true),
        (gateway, "send reserve_inventory", false),
        (worker, "process reserve_inventory", true),
        (worker, "process ORDERS", true),
    ] {
        let span = collector.span(service, name).await;
        assert_eq!(text(&span, "order.id").is_some_and(|id| id == placed), order, "{name}");
        let request = text(&span, "request.id");
        assert!(request.is_some_and(|id| id == "my-order-3") || name == "process ORDERS", "{name}");
    }
}

#[tokio::test]
async fn the_time_between_sending_and_working_is_a_span_of_its_own() {
    let collector = Collector::open().await;
    let system = collector.system().await;
    let items = new_order("lamp", 1).request.items;
    system.orders().check_inventory(traced(CheckInventoryRequest { items })).await.unwrap();
    let queue = collector.span("inventory-worker", "queue").await;
    let sent = collector.span("gateway", "send check_inventory").await;
    assert_below(&collector.span("inventory-worker", "process check_inventory").await, &queue);
    assert!(sent.start_time_unix_nano <= queue.end_time_unix_nano + 1_000_000);
    assert!(queue.start_time_unix_nano <= queue.end_time_unix_nano);
    assert!(queue.end_time_unix_nano <= sent.end_time_unix_nano);
}

#[tokio::test]
async fn every_attempt_has_a_span_in_the_same_trace() {
    let collector = Collector::open().await;
    let options = collector.options.clone();
    let system = System::builder().workers(0).each_gateway(|config| config.traces = options).start().await;
    let items = new_order("lamp", 1).request.items;
    system.orders().check_inventory(traced(CheckInventoryRequest { items })).await.unwrap_err();
    let call = collector.span("gateway", "orders.v1.OrderService/CheckInventory").await;
    let attempts = || {
        let spans = collector.received.0.lock().unwrap();
        spans
            .iter()
            .filter(|(_, span)| span.name == "send check_inventory")
            .map(|(_, span)| span.clone())
            .collect()
    };
    until("four attempts came", async || Vec::<Span>::len(&attempts()) == 4).await;
    let attempts: Vec<Span> = attempts();
    attempts.iter().for_each(|attempt| assert_below(&call, attempt));
    let mut retries: Vec<_> = attempts.iter().filter_map(|span| text(span, "messaging.nats.retry")).collect();
    retries.sort();
    assert_eq!(retries, ["1", "2", "3"]);
    assert_eq!(text(&call, "error.type").as_deref(), Some("NO_RESPONDERS"));
}

#[tokio::test]
async fn a_call_that_nobody_chose_leaves_no_trace() {
    let collector = Collector::open().await;
    let system = collector.system().await;
    system.order("lamp", 1).await.unwrap();
    // A sampled call follows. Spans of earlier calls would be exported with it.
    system.orders().create_order(traced(new_order("lamp", 1).request)).await.unwrap();
    collector.span("gateway", "orders.v1.OrderService/CreateOrder").await;
    collector.span("inventory-worker", "process ORDERS").await;
    let spans = collector.received.0.lock().unwrap();
    assert_eq!(spans.iter().filter(|(_, span)| span.name.ends_with("/CreateOrder")).count(), 1);
    assert_eq!(spans.iter().filter(|(_, span)| span.name == "process ORDERS").count(), 1);
}

/// The log of this process.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_lines_of_a_call_have_its_trace_and_request_id() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().with_env_filter("gateway::call=debug");
    // No other test of this process sets a subscriber.
    subscriber.with_writer(move || writer.clone()).try_init().unwrap();
    let system = System::builder().stock("lamp", 5).start().await;
    system.orders().create_order(traced(new_order("lamp", 1).id("my-order-1").request)).await.unwrap();
    let line = |code: &str| {
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().find(|line| line.contains(TRACE) && line.contains(code)).map(str::to_owned)
    };
    until("the call is logged", async || line(r#""code":"OK""#).is_some()).await;
    let mut refused = traced(new_order("lamp", 9).id("my-order-2").request);
    refused.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
    system.orders().create_order(refused).await.unwrap_err();
    until("the failure is logged", async || line("INSUFFICIENT_STOCK").is_some()).await;
    let failure = line("INSUFFICIENT_STOCK").unwrap();
    assert!(failure.contains(r#""request_id":"my-order-2""#), "{failure}");
    assert!(!failure.contains("ann") && !failure.contains("lamp"), "{failure}");
}
