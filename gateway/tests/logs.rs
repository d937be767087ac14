//! The log of a running gateway: one line for each failed call, with its ids, and lines about its connections.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;

use contract::inventory::v1::Item;
use contract::orders::v1::CreateOrderRequest;
use contract::orders::v1::order_service_client::OrderServiceClient;
use serde_json::Value;
use tonic::{Request, Status};

use crate::harness::process::{Process, assert_nothing_empty, until};
use crate::system::System;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A gateway, and its address.
struct GatewayProcess {
    service: Process,
    grpc: SocketAddr,
}

impl GatewayProcess {
    fn open(system: &System) -> GatewayProcess {
        GatewayProcess::logging(system, "info")
    }

    fn logging(system: &System, level: &str) -> GatewayProcess {
        let grpc = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = system.gateway(&["serve", "--http-addr", "127.0.0.1:0", "--grpc-addr"]);
        command.arg(grpc.to_string()).env("RUST_LOG", level).stdout(Stdio::null());
        let service = Process::start(&mut command, system.path("log"));
        until("it serves", || TcpStream::connect(grpc).is_ok());
        // Until all of its threads serve, it exits when NATS is lost.
        service.line("serving");
        GatewayProcess { service, grpc }
    }

    /// Orders one lamp, in a trace.
    fn order(&self, system: &System, request_id: &str) -> Result<(), Status> {
        let mut request = Request::new(CreateOrderRequest {
            request_id: request_id.to_owned(),
            customer_id: "ann".to_owned(),
            items: vec![Item { product_id: "lamp".to_owned(), quantity: 1 }],
        });
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
        system.block_on(async {
            let mut client = OrderServiceClient::connect(format!("http://{}", self.grpc)).await.unwrap();
            client.create_order(request).await.map(drop)
        })
    }
}

/// Makes ORDERS full.
fn fill(system: &System) {
    system.block_on(async {
        let client = async_nats::connect(system.nats.url()).await.unwrap();
        let context = async_nats::jetstream::new(client);
        let mut config = context.get_stream("ORDERS").await.unwrap().cached_info().config.clone();
        config.max_messages = 1;
        context.update_stream(&config).await.unwrap();
    });
}

#[test]
fn a_failed_call_is_one_line_with_its_ids_and_its_cause() {
    let system = System::with_orders(0);
    let gateway = GatewayProcess::open(&system);
    until("an order is placed", || gateway.order(&system, "first").is_ok());
    fill(&system);
    let status = gateway.order(&system, "second").unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    gateway.service.line("the call failed");
    // Any other line about the call would have come before.
    let lines = gateway.service.warnings(&["second", "full", "maximum messages", TRACE]);
    let about: Vec<&Value> = lines.iter().filter(|line| !line.to_string().contains("\"first\"")).collect();
    assert_eq!(about.len(), 1, "{about:#?}");
    let fields = &about[0]["fields"];
    assert_eq!(fields["method"], "orders.v1.OrderService/CreateOrder");
    assert_eq!((&fields["code"], &fields["reason"]), (&"RESOURCE_EXHAUSTED".into(), &"STORAGE_FULL".into()));
    assert_eq!((&fields["request_id"], &fields["trace_id"]), (&"second".into(), &TRACE.into()));
    assert_eq!(fields["delivered"], "no");
    assert_eq!(fields["order_id"].as_str().unwrap().len(), 36);
    assert!(fields["cause"].as_str().unwrap().contains("maximum messages exceeded"), "{fields}");
    assert!(!about[0].to_string().contains("lamp") && !about[0].to_string().contains("ann"), "{fields}");
    assert!(!format!("{status:?}").contains("maximum messages"), "a caller is not told: {status:?}");
}

#[test]
fn a_good_call_is_one_line_at_debug_with_its_ids() {
    let system = System::with_orders(0);
    let gateway = GatewayProcess::logging(&system, "info,gateway::call=debug");
    until("an order is placed", || gateway.order(&system, "first").is_ok());
    let lines = || gateway.service.lines().into_iter().filter(|line| line["fields"]["request_id"] == "first");
    let good = || lines().find(|line| line["fields"]["code"] == "OK");
    until("it is in the log", || good().is_some());
    let fields = &good().unwrap()["fields"];
    assert_eq!(
        (&fields["trace_id"], fields["order_id"].as_str().unwrap().len()),
        (&TRACE.into(), 36),
        "{fields}"
    );
}

#[test]
fn lines_about_the_connection_name_the_node_and_no_line_has_an_empty_field() {
    let mut system = System::with_orders(0);
    let gateway = GatewayProcess::open(&system);
    until("an order is placed", || gateway.order(&system, "").is_ok());
    let address = system.nats.url().replace("nats://", "");
    let node = gateway.service.line("connected to NATS")["fields"]["node"].as_str().unwrap().to_owned();
    assert!(node.len() > address.len() + 3 && node.contains(&address), "{node}");
    system.nats.kill();
    let lost = gateway.service.line("disconnected from NATS");
    assert_eq!((&lost["level"], &lost["fields"]["node"]), (&"WARN".into(), &node.into()));
    let status = gateway.order(&system, "").unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    gateway.service.line("the call failed");
    system.nats.restart().unwrap();
    assert_nothing_empty(&gateway.service.lines());
}
