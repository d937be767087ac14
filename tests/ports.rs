//! Health and HTTP ports: clients that hold connections or send too many requests do not keep probes out, and web pages
//! of other hosts cannot read anything.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::client::settled;
use crate::harness::http::get;
use crate::harness::system::{PATIENCE, System, until};

/// More than the connection limit of these ports.
const CROWD: usize = 400;

/// The response to a request, as far as it is sent.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn probe(address: SocketAddr) -> bool {
    let ask = async {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.ok()?;
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.ok()
    };
    timeout(PATIENCE, ask).await.is_ok_and(|answer| answer.is_some())
}

/// Connections that send these bytes and nothing more.
async fn crowd(address: SocketAddr, word: &[u8]) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut one = TcpStream::connect(address).await.unwrap();
        one.write_all(word).await.unwrap();
        crowd.push(one);
    }
    crowd
}

/// A metric without further labels.
async fn figure(http: SocketAddr, name: &str) -> f64 {
    let page = get(http, "/metrics").await;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not on\n{page}")).parse().unwrap()
}

#[tokio::test]
async fn whoever_holds_connections_keeps_no_probe_out() {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let system = System::builder().each_gateway(|config| config.health_addr = Some(free)).start().await;
    let gateway = &system.gateways[0];
    let (health, http) = (system.workers[0].health().await, system.workers[0].http().await);
    let ports = [(gateway.http_addr(), gateway.health_addr().unwrap()), (http, health)];
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for (http, health) in ports {
        let _silent = (crowd(http, b"").await, crowd(health, b"").await);
        let _begun = (crowd(http, b"GET /metrics HT").await, crowd(health, preface).await);
        assert!(get(http, "/healthz").await.contains("SERVING"));
        assert!(probe(health).await);
        for (port, most) in [("http", 256.0), ("health", 128.0)] {
            let connections = format!(r#"port_connections{{port="{port}"}}"#);
            until("others have made room", async || figure(http, &connections).await <= most).await;
            let evicted = format!(r#"port_connections_closed_total{{port="{port}",reason="evicted"}}"#);
            assert!(figure(http, &evicted).await > 0.0, "{port}");
        }
    }
}

#[tokio::test]
async fn half_a_request_and_silence_end_by_themselves() {
    let system = System::builder().start().await;
    for address in [system.gateways[0].http_addr(), system.workers[0].http().await] {
        let (half, silent) =
            tokio::join!(exchange(address, "GET /metrics HTTP/1.1\r\nHo"), exchange(address, ""));
        assert_eq!((half.as_str(), silent.as_str()), ("", ""));
    }
}

#[tokio::test]
async fn many_concurrent_requests_for_metrics_are_answered_together() {
    let system = System::builder().start().await;
    let address = system.gateways[0].http_addr();
    let begun = Instant::now();
    let all: Vec<_> = (0..200).map(|_| tokio::spawn(get(address, "/metrics"))).collect();
    for one in all {
        assert!(timeout(PATIENCE, one).await.unwrap().unwrap().contains("gateway_build_info"));
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn pages_of_another_host_read_nothing() {
    let hosts = vec!["figures.example.com".to_owned()];
    let system = System::builder()
        .each_gateway(|config| config.http_hosts = hosts.clone())
        .each_worker(|config| config.http_hosts = hosts.clone())
        .start()
        .await;
    let (gateway, worker) = (system.gateways[0].http_addr(), system.workers[0].http().await);
    let pages = ["/", "/console.json", "/metrics"].map(|path| (gateway, path));
    for (address, path) in pages.into_iter().chain([(worker, "/metrics")]) {
        let ask = async |host: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            exchange(address, &request).await.to_ascii_lowercase()
        };
        for host in ["evil.example", "evil.example:8080", "localhost.evil.example"] {
            let answer = ask(host).await;
            assert!(
                answer.starts_with("http/1.1 403") && !answer.contains("_build_info"),
                "{path} {host}: {answer}"
            );
        }
        for host in ["localhost", "127.0.0.1:8080", "[::1]:1", "figures.example.com"] {
            let answer = ask(host).await;
            assert!(answer.starts_with("http/1.1 200"), "{path} {host}: {answer}");
            for header in ["cache-control: no-store", "x-content-type-options: nosniff"] {
                assert!(answer.contains(header), "{path}: {header}: {answer}");
            }
            assert!(!answer.contains("access-control"), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn probes_are_answered_whatever_they_call_us_and_nobody_keeps_that() {
    let system = System::builder().start().await;
    for address in [system.gateways[0].http_addr(), system.workers[0].http().await] {
        for path in ["/healthz", "/livez", "/nothing"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: pod.example\r\nConnection: close\r\n\r\n");
            let answer = exchange(address, &request).await.to_ascii_lowercase();
            let code = if path == "/nothing" { "404" } else { "200" };
            assert!(answer.starts_with(&format!("http/1.1 {code}")), "{path}: {answer}");
            for header in
                ["cache-control: no-store", "x-content-type-options: nosniff", "x-frame-options: deny"]
            {
                assert!(answer.contains(header), "{path}: {header}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn a_gateway_that_other_machines_reach_has_no_console_unless_that_is_meant() {
    let system = System::builder().workers(0).gateways(0).start().await;
    for (console, code) in [(None, "404"), (Some(true), "200")] {
        let mut config = system.gateway.clone();
        (config.http_addr, config.console) = ("0.0.0.0:0".parse().unwrap(), console);
        let gateway = gateway::Gateway::start(config).await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], gateway.http_addr().port()));
        for path in ["/", "/console.json"] {
            let answer = exchange(address, &format!("GET {path} HTTP/1.0\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.0 {code}")), "{path}: {answer}");
        }
    }
}

/// Stores dead letters with large gaps between them.
const FAR: usize = 30_000;

#[tokio::test]
async fn the_newest_dead_letters_are_found_across_gaps_with_few_requests() {
    let system = System::builder().start().await;
    let nats = system.nats().await;
    let jetstream = async_nats::jetstream::new(nats.clone());
    let letter = async |number: u32| {
        let stored = jetstream.publish(format!("dead_letters.orders.{number}"), "x".into()).await.unwrap();
        stored.await.unwrap().sequence
    };
    let mut ids = vec![letter(1).await, letter(2).await];
    for _ in 0..FAR {
        nats.publish("dead_letters.gone", "x".into()).await.unwrap();
    }
    ids.push(letter(3).await);
    let stream = jetstream.get_stream_no_info("DEAD_LETTERS").await.unwrap();
    stream.purge().filter("dead_letters.gone").await.unwrap();
    ids.extend([letter(4).await, letter(5).await]);
    let link = nats::Connection::connect(&nats::Options::at(system.nats.url()), "an operator").await.unwrap();
    let mut asked = nats.subscribe("$JS.API.STREAM.MSG.GET.DEAD_LETTERS").await.unwrap();
    settled(&nats).await;
    let newest = async |requests| {
        let letters = order_streams::DeadLetters::new(&link).newest(20, requests, PATIENCE).await.unwrap();
        letters.iter().rev().map(|letter| letter.id).collect::<Vec<_>>()
    };
    assert_eq!(newest(200).await, ids);
    // With too few requests, it finds only some.
    assert_eq!(newest(4).await, ids[2..]);
    let mut count = 0;
    while timeout(Duration::from_secs(1), futures_util::StreamExt::next(&mut asked)).await.is_ok() {
        count += 1;
    }
    assert!((5..80).contains(&count), "{count}");
}
