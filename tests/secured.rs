//! NATS with TLS as shipped: orders are placed, and peers without a certificate, or with the wrong one, are rejected.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use local_nats::{Options, Ready, Server, spare_port};
use nats::Connection;
use serde_json::json;

use crate::harness::cluster::until;
use crate::harness::deployment::{Deployment, ask, certificates, options, start};
use crate::harness::roles;
use crate::harness::system::new_order;

fn log(server: &Server) -> String {
    std::fs::read_to_string(server.log()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_goes_through_three_nodes_with_tls_and_nobody_else_gets_in() {
    let deployment = Deployment::start().await;
    let order =
        deployment.orders().create_order(new_order("lamp", 2).id("one").request).await.unwrap().into_inner();
    let info = ask(&deployment.connect("gateway").await, "$JS.API.STREAM.INFO.ORDERS", &json!({})).await;
    assert_eq!(info["cluster"]["replicas"].as_array().map(Vec::len), Some(2), "{info}");
    assert!(order.order.is_some());
    assert_eq!(deployment.monitor(0, "/varz").await["tls_required"], true);
    // A client without TLS is told that it is required, and closed.
    let stream = TcpStream::connect(("127.0.0.1", deployment.server(0).port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains(r#""tls_required":true"#));
    let hello = r#"CONNECT {"verbose":false,"user":"gateway","pass":"gateway's secret"}"#;
    (&stream).write_all(format!("{hello}\r\nPING\r\n").as_bytes()).unwrap();
    assert!(lines.all(|line| line.is_err() || !line.unwrap().contains("PONG")));
    // A client without the authority does not trust the server.
    let untrusting = nats::Options { ca: None, ..deployment.role("gateway") };
    assert!(Connection::connect(&untrusting, "no authority").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_certificate_of_the_authority_is_no_part_of_the_cluster() {
    let deployment = Deployment::start().await;
    let ports = deployment.routes();
    let others = async || {
        let routes = deployment.monitor(0, "/routez").await;
        let names: Vec<_> =
            routes["routes"].as_array().unwrap().iter().map(|r| r["remote_name"].to_string()).collect();
        names.iter().filter(|name| name.contains("rogue")).count()
    };
    // Without TLS, as in cluster.conf.
    let urls: Vec<_> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let (port, urls) = (spare_port().unwrap(), urls.join(", "));
    let config = format!(
        "server_name: rogue\n{}\ncluster {{ name: orders, listen: \"127.0.0.1:{port}\", routes: [{urls}] }}",
        roles::config()
    );
    let rogue = start(Options { config: Some(config), ready: Ready::Listening, ..Options::default() }).await;
    until("it was turned away", async || log(deployment.server(0)).contains("TLS route handshake error"))
        .await;
    assert_eq!(others().await, 0);
    drop(rogue);
    // With a certificate of another authority.
    let outside = deployment.folder.path().join("outside");
    certificates(&outside, &["rogue"]);
    let port = spare_port().unwrap();
    let rogue = start(options("rogue", deployment.folder.path(), &outside.join("rogue"), port, ports)).await;
    until("it believes nobody, or nobody believes it", async || {
        log(&rogue).contains("TLS route handshake error")
    })
    .await;
    assert_eq!(others().await, 0);
    let routes = deployment.monitor(1, "/varz").await["cluster"]["urls"].clone();
    assert!(!routes.to_string().contains(&port.to_string()), "{routes}");
}
