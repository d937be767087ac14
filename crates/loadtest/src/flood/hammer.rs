//! Attacks that repeat a request as soon as it is answered: HTTP pages, and requests that create products. Must not
//! depend on the effect on others.

use std::net::SocketAddr;
use std::time::Duration;

use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::inventory::v1::{AdjustStockRequest, Adjustment};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Request;
use tonic::transport::Endpoint;
use uuid::Uuid;

use super::kind::Kind;
use super::wire::Told;

/// Pause before the next attempt, if a connection fails.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// The console's most expensive page.
const CONSOLE: &str = "/console.json";
const METRICS: &str = "/metrics";
/// Products per request: the limit.
const PRODUCTS: usize = 1_000;

/// Requests a page until `end`.
pub(super) async fn pages(kind: Kind, target: SocketAddr, end: Instant) -> Told {
    let path = if kind == Kind::ConsoleHammered { CONSOLE } else { METRICS };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let mut told = Told::default();
    while Instant::now() < end {
        let Ok(Ok(stream)) = timeout_at(end, TcpStream::connect(target)).await else {
            told.cut += 1;
            sleep(PAUSE).await;
            continue;
        };
        told.made += 1;
        let mut stream = BufReader::new(stream);
        let asked = async {
            loop {
                stream.get_mut().write_all(request.as_bytes()).await?;
                told.sent += 1;
                page(&mut stream).await?;
                told.answered += 1;
            }
        };
        let ended: Result<std::io::Result<()>, _> = timeout_at(end, asked).await;
        match ended {
            Ok(_) => told.cut += 1,
            Err(_) => told.lasted += 1,
        }
        if told.answered == 0 {
            sleep(PAUSE).await;
        }
    }
    told
}

/// Reads a response, whatever its status.
async fn page(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(|_| std::io::ErrorKind::InvalidData)?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map(drop)
}

/// Creates products until `end`.
pub(super) async fn products(target: SocketAddr, end: Instant) -> Told {
    let mut told = Told::default();
    while Instant::now() < end {
        let endpoint = Endpoint::from_shared(format!("http://{target}"));
        let connected = async { Some(endpoint.ok()?.connect().await.ok()) };
        let Ok(Some(Some(channel))) = timeout_at(end, connected).await else {
            told.cut += 1;
            sleep(PAUSE).await;
            continue;
        };
        told.made += 1;
        let mut client = InventoryServiceClient::new(channel);
        while let Ok(answer) = timeout_at(end, client.adjust_stock(Request::new(names()))).await {
            told.answered += 1;
            match answer {
                Ok(_) => told.sent += PRODUCTS as u64,
                // The limit on products is reached, or the worker is busy with earlier ones.
                Err(_) => sleep(PAUSE).await,
            }
        }
        told.lasted += 1;
    }
    told
}

fn names() -> AdjustStockRequest {
    let request_id = Uuid::new_v4().to_string();
    // The longest permitted name.
    let adjustment = |number| Adjustment { product_id: format!("{request_id}-{number:027}"), delta: 1 };
    let adjustments = (0..PRODUCTS).map(adjustment).collect();
    AdjustStockRequest { adjustments, request_id: request_id.clone(), reason: String::new() }
}
