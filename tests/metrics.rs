//! The metrics that Prometheus scrapes after known traffic, and what the console shows of them.

use contract::orders::v1::OrderStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::http::get;
use crate::harness::system::{System, assert_refused, new_order, until};

/// Saves a page for the check that dashboards and alerts name only existing metrics (`.ci/check-metrics`).
fn keep(page: &str, name: &str) {
    std::fs::write(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), page).unwrap();
}

/// The value of a metric on a page.
#[track_caller]
fn number(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not on\n{page}")).parse().unwrap()
}

fn calls(rpc: &str, code: &str, reason: &str) -> String {
    format!(r#"gateway_calls_total{{method="orders.v1.OrderService/{rpc}",code="{code}",reason="{reason}"}}"#)
}

#[tokio::test]
async fn a_scrape_tells_how_calls_ended_and_what_it_took() {
    // The gateway needs the server's monitoring URL, which is known once the server runs.
    let mut system = System::builder().gateways(0).start().await;
    system.gateway.nats.nats_monitor_url = Some(system.nats.monitor_url());
    system.add_gateway().await;
    let stock = r#"{"requestId":"first","adjustments":[{"productId":"lamp","delta":5}]}"#;
    system.nats().await.request("adjust_stock", stock.into()).await.unwrap();
    for _ in 0..3 {
        system.order("lamp", 1).await.unwrap();
    }
    assert_refused(system.order("lamp", 9).await, "INSUFFICIENT_STOCK");
    assert_refused(system.place(&new_order("", 0)).await, "INVALID_REQUEST");
    assert!(system.check("lamp").await.unwrap());
    let address = system.gateways[0].http_addr();
    // A call is counted once its response was read to the end, which is after the caller has it.
    let name = calls("CheckInventory", "OK", "");
    until("the last call is counted", async || get(address, "/metrics").await.contains(&name)).await;
    let page = get(address, "/metrics").await;
    assert_eq!(number(&page, &calls("CreateOrder", "OK", "")), 3.0);
    assert_eq!(number(&page, &calls("CreateOrder", "FAILED_PRECONDITION", "INSUFFICIENT_STOCK")), 1.0);
    assert_eq!(number(&page, &calls("CreateOrder", "INVALID_ARGUMENT", "INVALID_REQUEST")), 1.0);
    let times = r#"gateway_call_duration_seconds_count{method="orders.v1.OrderService/CreateOrder"}"#;
    assert_eq!(number(&page, times), 5.0);
    // Four orders without a request id were checked, and there was one call of CheckInventory.
    // If the machine paused for a moment, there were hedged requests.
    let sent =
        |what: &str, route: &str| number(&page, &format!(r#"gateway_route_{what}_total{{route="{route}"}}"#));
    let attempts = |route: &str| sent("attempts", route) - sent("hedges", route);
    assert_eq!((attempts("check_inventory"), attempts("reserve_inventory")), (5.0, 3.0));
    assert_eq!(number(&page, r#"gateway_service_up{service="orders.v1.OrderService"}"#), 1.0);
    assert_eq!(number(&page, "gateway_connections"), 1.0);
    until("streams are read", async || get(address, "/metrics").await.contains("jetstream_polled 1")).await;
    let room = "nats_server_storage_limit_bytes{";
    until("the server is read", async || get(address, "/metrics").await.contains(room)).await;
    keep(&get(address, "/metrics").await, "gateway.prom");
}

#[tokio::test]
async fn a_worker_tells_what_it_committed_and_what_it_holds() {
    let system = System::builder().stock("lamp", 5).start().await;
    let order = system.order("lamp", 2).await.unwrap();
    let address = system.workers[0].http().await;
    let done = r#"worker_events_total{result="done"}"#;
    until("the event is worked off", async || number(&get(address, "/metrics").await, done) == 1.0).await;
    let page = get(address, "/metrics").await;
    let requests = r#"worker_requests_total{route="reserve_inventory",code="OK",reason=""}"#;
    assert_eq!(number(&page, requests), 1.0);
    // The first stock, the reservation, and that it is bound.
    assert_eq!(number(&page, "ledger_commits_total"), 3.0);
    assert_eq!(number(&page, "ledger_sequence"), 3.0);
    assert_eq!(number(&page, "inventory_products"), 1.0);
    assert_eq!(number(&page, "inventory_reservations_open"), 0.0);
    assert_eq!(number(&page, "ledger_ready"), 1.0);
    keep(&page, "worker.prom");
    system.update(&order, OrderStatus::Cancelled, "").await.unwrap();
    until("it is cancelled", async || number(&get(address, "/metrics").await, "ledger_commits_total") == 4.0)
        .await;
}

#[tokio::test]
async fn an_outage_is_seen_in_the_metrics() {
    let mut system = System::builder().workers(0).start().await;
    let refused = system.check("lamp").await.unwrap_err();
    assert_eq!(crate::harness::system::reason(&refused), "NO_RESPONDERS");
    let address = system.gateways[0].http_addr();
    let page = get(address, "/metrics").await;
    let absent = number(&page, r#"gateway_route_no_responders_total{route="check_inventory"}"#);
    let retries = number(&page, r#"gateway_route_retries_total{route="check_inventory"}"#);
    assert_eq!((absent, retries), (4.0, 3.0));
    assert_eq!(number(&page, r#"gateway_route_up{route="check_inventory"}"#), 0.0);
    assert_eq!(number(&page, r#"nats_connected{connection="gateway 0"}"#), 1.0);
    system.nats.kill();
    let name = r#"nats_connected{connection="gateway 0"}"#;
    until("it is seen", async || number(&get(address, "/metrics").await, name) == 0.0).await;
}

#[tokio::test]
async fn the_console_shows_orders_workers_and_streams() {
    let system = System::builder().stock("lamp", 5).start().await;
    let order = system.order("lamp", 1).await.unwrap();
    let address = system.gateways[0].http_addr();
    let figures =
        async || -> serde_json::Value { serde_json::from_str(&get(address, "/console.json").await).unwrap() };
    until("it has seen the worker", async || figures().await["workers"][0]["name"] == "inventory").await;
    until("it shows the order", async || figures().await["events"][0]["status"] == "PENDING").await;
    // Streams are polled every few seconds; the first poll may have been before the order.
    let recorded = |figures: &serde_json::Value| {
        let streams = figures["streams"].as_array().cloned().unwrap_or_default();
        streams.iter().any(|stream| stream["name"] == "ORDERS" && stream["messages"] == 1)
    };
    until("it shows the record", async || recorded(&figures().await)).await;
    let figures = figures().await;
    // The console asks for no credential, so it must not show these.
    let told = figures.to_string();
    assert!(!told.contains(&order.order_id) && !told.contains(&order.customer_id), "{told}");
    assert_eq!(figures["status"], "SERVING");
    assert_eq!(figures["events"][0]["type"], "order_created");
    // Routes of operator commands are left out, as a worker may run without them.
    assert!(figures["routes"].as_array().unwrap().iter().all(|route| route["up"] == true), "{figures}");
    assert!(get(address, "/").await.contains("console.json"));
}

#[tokio::test]
async fn without_the_console_its_json_is_not_served_either() {
    let system = System::builder().each_gateway(|gateway| gateway.console = Some(false)).start().await;
    let address = system.gateways[0].http_addr();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /console.json HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.0 404"), "{text}");
    assert!(get(address, "/metrics").await.contains("gateway_build_info"));
}

#[tokio::test]
async fn every_program_says_which_commit_it_was_built_from() {
    let system = System::builder().start().await;
    let labels = format!("{{version=\"{}\",revision=\"{}\"}} 1", version::VERSION, version::COMMIT);
    let gateway = get(system.gateways[0].http_addr(), "/metrics").await;
    assert!(gateway.contains(&format!("gateway_build_info{labels}")), "{gateway}");
    let worker = get(system.workers[0].http().await, "/metrics").await;
    assert!(worker.contains(&format!("worker_build_info{labels}")), "{worker}");
}
