//! The standard output of `dev`. Must not depend on the state of the system.

use std::net::SocketAddr;
use std::path::Path;

/// Prints a line. A closed standard output is no reason to stop.
pub(super) fn say(line: &str) {
    cli::say!("{line}");
}

/// Prints `ready` on a line of its own, then the addresses and examples.
pub(super) fn ready(grpc: SocketAddr, http: SocketAddr, nats: &str, folder: &Path) {
    let order = r#"{"customerId":"ann","items":[{"productId":"lamp","quantity":1}]}"#;
    let items = r#"[{"productId":"lamp","quantity":1}]"#;
    let buf = "buf curl --http2-prior-knowledge --protocol grpc";
    say(&format!(
        "ready

  gRPC   {grpc} (plaintext, with reflection)
  HTTP   http://{http}/healthz
  NATS   {nats}
  data   {folder}

To try, with buf or grpcurl:
  {buf} http://{grpc} --list-methods
  {buf} http://{grpc}/orders.v1.OrderService/CreateOrder -d '{order}'
  grpcurl -plaintext {grpc} list
  grpcurl -plaintext -d '{order}' {grpc} orders.v1.OrderService/CreateOrder
  grpcurl -plaintext -d '{{}}' {grpc} orders.v1.OrderService/WatchOrders

On NATS, with the nats CLI:
  nats -s {nats} req check_inventory '{items}'
  nats -s {nats} sub order_created

Ctrl-C stops it.
",
        folder = folder.display(),
    ));
}
