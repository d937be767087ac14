//! The log of a running worker: one line for each failed request, with its ids.

use std::process::Stdio;
use std::time::Duration;

use async_nats::HeaderMap;
use contract::header;
use local_nats::Server;
use tokio::time::timeout;

use crate::WORKER;
use crate::harness::command::program;
use crate::harness::process::{Process, assert_nothing_empty};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ORDER: &str = "0198f2a4-7c1b-4d3a-9f11-1a2b3c4d5e6f";

/// What the worker answers, when it does.
async fn ask(client: &async_nats::Client, subject: &'static str, body: &str) -> String {
    let mut headers = HeaderMap::new();
    headers.insert(header::REQUEST_ID, "mine");
    headers.insert(header::TRACEPARENT, format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let asked = async {
        loop {
            let request = client.request_with_headers(subject, headers.clone(), body.to_owned().into());
            if let Ok(reply) = request.await {
                return String::from_utf8(reply.payload.to_vec()).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), asked).await.expect("an answer")
}

#[tokio::test]
async fn a_failed_request_is_one_line_with_its_ids_and_its_cause() {
    let (nats, folder) = (Server::start().unwrap(), tempfile::tempdir().unwrap());
    let mut command = program(WORKER, &["--http-addr=127.0.0.1:0", "--health-addr=127.0.0.1:0"]);
    command.env("NATS_URL", nats.url()).stdout(Stdio::null());
    let worker = Process::start(&mut command, folder.path().join("log"));
    let client = async_nats::connect(nats.url()).await.unwrap();
    let stock = r#"{"requestId":"first","adjustments":[{"productId":"lamp","delta":9}]}"#;
    assert!(ask(&client, "adjust_stock", stock).await.contains("lamp"));
    let context = async_nats::jetstream::new(client.clone());
    let mut config = context.get_stream("INVENTORY").await.unwrap().cached_info().config.clone();
    config.max_messages = 1;
    context.update_stream(&config).await.unwrap();
    let items = format!(r#"{{"orderId":"{ORDER}","items":[{{"productId":"lamp","quantity":1}}]}}"#);
    let answer = ask(&client, "reserve_inventory", &items).await;
    assert!(answer.contains("STORAGE_FULL") && !answer.contains("maximum messages"), "{answer}");
    worker.line("the request failed");
    let lines = worker.warnings(&["mine", "full", "maximum messages", TRACE]);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let fields = &lines[0]["fields"];
    assert_eq!((&fields["request_id"], &fields["trace_id"]), (&"mine".into(), &TRACE.into()));
    assert_eq!((&fields["order_id"], &fields["delivered"]), (&ORDER.into(), &"no".into()));
    assert!(fields["cause"].as_str().unwrap().contains("maximum messages exceeded"), "{fields}");
    assert_nothing_empty(&worker.lines());
}
