//! OTLP collectors that use HTTP, reject spans, or are unreachable: what they receive, and what the metrics say.

use std::sync::{Arc, Mutex};

use contract::orders::v1::CheckInventoryRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost_reflect::prost::Message as _;
use telemetry::trace::Options;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::harness::http::get;
use crate::harness::system::{System, new_order, until};

/// What was received: the head of each request, and the names of its spans.
type Came = Arc<Mutex<Vec<(String, Vec<String>)>>>;

/// A collector over HTTP that rejects this many spans of each request.
struct Collector {
    came: Came,
    options: Options,
    _serving: AbortOnDropHandle<()>,
}

impl Collector {
    async fn open(rejected: i64) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let came = Came::default();
        let seen = came.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, seen.clone(), rejected));
            }
        });
        let options = options(endpoint, "http/protobuf");
        Collector { came, options, _serving: AbortOnDropHandle::new(serving) }
    }

    fn spans(&self) -> Vec<String> {
        self.came.lock().unwrap().iter().flat_map(|(_, spans)| spans.clone()).collect()
    }
}

fn options(endpoint: String, protocol: &str) -> Options {
    Options {
        otel_exporter_otlp_endpoint: Some(endpoint),
        otel_exporter_otlp_protocol: Some(protocol.to_owned()),
        otel_exporter_otlp_headers: Some("x-team=system".to_owned()),
        otel_exporter_otlp_timeout: Some("2000".to_owned()),
        otel_bsp_schedule_delay: Some("50".to_owned()),
        ..Options::default()
    }
}

async fn serve(stream: TcpStream, came: Came, rejected: i64) -> Option<()> {
    let (mut stream, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") {
        stream.read_line(&mut head).await.ok().filter(|read| *read > 0)?;
    }
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length?];
    stream.read_exact(&mut body).await.ok()?;
    let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    let spans = scopes.flat_map(|scope| scope.spans).map(|span| span.name).collect();
    came.lock().unwrap().push((head, spans));
    let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: "too old".to_owned() };
    let partial_success = (rejected > 0).then_some(partial);
    let answer = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
    stream.write_all(&[head.as_bytes(), &answer].concat()).await.ok()
}

async fn system(options: &Options) -> System {
    let (gateway, worker) = (options.clone(), options.clone());
    System::builder()
        .stock("lamp", 5)
        .each_gateway(move |config| config.traces = gateway.clone())
        .each_worker(move |config| config.traces = worker.clone())
        .start()
        .await
}

/// How many spans gateway and worker count as sent, failed and dropped.
async fn figures(system: &System) -> [f64; 3] {
    let pages = [
        get(system.gateways[0].http_addr(), "/metrics").await,
        get(system.workers[0].http().await, "/metrics").await,
    ];
    ["exported", "failed", "dropped"].map(|outcome| {
        let name = format!(r#"trace_spans_total{{outcome="{outcome}"}} "#);
        let line =
            |page: &String| page.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok());
        pages.iter().map(|page| line(page).unwrap_or_else(|| panic!("{name} is not on\n{page}"))).sum()
    })
}

async fn check(system: &System) {
    let items = new_order("lamp", 1).request.items;
    system.orders().check_inventory(CheckInventoryRequest { items }).await.unwrap();
}

#[tokio::test]
async fn traces_go_over_http_where_that_is_said() {
    let collector = Collector::open(0).await;
    let system = system(&collector.options).await;
    check(&system).await;
    let has = |name: &str| collector.spans().iter().any(|span| span == name);
    until("the gateway's spans came", async || has("orders.v1.OrderService/CheckInventory")).await;
    until("the worker's spans came", async || has("process check_inventory")).await;
    let head = collector.came.lock().unwrap()[0].0.to_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    for line in ["content-type: application/x-protobuf", "x-team: system"] {
        assert!(head.contains(line), "{head}");
    }
    let sent = async || figures(&system).await == [collector.spans().len() as f64, 0.0, 0.0];
    until("all that came is counted", sent).await;
}

#[tokio::test]
async fn spans_that_a_collector_rejects_are_counted_as_failed() {
    let collector = Collector::open(1).await;
    let system = system(&collector.options).await;
    check(&system).await;
    until("a span is counted as failed", async || figures(&system).await[1] >= 1.0).await;
}

#[tokio::test]
async fn spans_for_a_collector_that_is_down_are_counted_as_failed() {
    // Nothing listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for protocol in ["grpc", "http/protobuf"] {
        let system = system(&options(format!("http://{gone}"), protocol)).await;
        check(&system).await;
        // Spans of the call, of its request, and of the worker.
        until("they are counted", async || figures(&system).await[1] >= 3.0).await;
        assert_eq!(figures(&system).await[0], 0.0, "{protocol}");
    }
}

#[tokio::test]
async fn spans_that_find_no_room_are_counted_as_dropped() {
    // It accepts data and never replies.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options(format!("http://{}", silent.local_addr().unwrap()), "http/protobuf");
    options.otel_bsp_max_queue_size = Some("4".to_owned());
    options.otel_bsp_max_export_batch_size = Some("2".to_owned());
    options.otel_exporter_otlp_timeout = Some("60000".to_owned());
    let system = system(&options).await;
    until("spans are dropped", async || {
        check(&system).await;
        figures(&system).await[2] >= 1.0
    })
    .await;
}
