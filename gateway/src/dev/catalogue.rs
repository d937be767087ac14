//! The demo catalogue: a few products with stock, loaded once per data folder, through the gateway like any client.
//! Must not overwrite existing stock.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::inventory::v1::{AdjustStockRequest, Adjustment};

use server::health_client::GatewayClient;

/// Products and units: the same file that docker-compose.yml loads.
const FILE: &str = include_str!("../../../deploy/compose/stock.csv");
/// Makes repeated loads idempotent while request ids are remembered.
const REQUEST_ID: &str = "dev-demo-catalogue";
/// The marker file of a completed load.
const MARK: &str = "catalogue-loaded";

/// Loads the catalogue if it was not loaded into this folder before, and returns a message.
pub(super) async fn load(folder: &Path, gateway: SocketAddr) -> anyhow::Result<String> {
    let mark = folder.join(MARK);
    if mark.exists() {
        return Ok("loaded before; the stock is unchanged".to_owned());
    }
    let adjustments = products(FILE)?;
    let count = adjustments.len();
    let request = AdjustStockRequest {
        request_id: REQUEST_ID.to_owned(),
        adjustments,
        reason: "demo catalogue".to_owned(),
    };
    let client = GatewayClient::connect(gateway).await?;
    let adjusted = InventoryServiceClient::new(client.connection()).adjust_stock(request).await;
    adjusted.map_err(|status| client.told(&status)).context("cannot load the demo catalogue")?;
    cli::file::replace(&mark, |_| Ok(())).with_context(|| format!("cannot write {}", mark.display()))?;
    Ok(format!("{count} products loaded"))
}

/// The lines of a file `product,on_hand`.
fn products(file: &str) -> anyhow::Result<Vec<Adjustment>> {
    let line = |line: &str| {
        let (product, units) = line.split_once(',')?;
        Some(Adjustment { product_id: product.to_owned(), delta: units.parse().ok()? })
    };
    file.lines()
        .skip(1)
        .map(|text| line(text).with_context(|| format!("deploy/compose/stock.csv: {text}")))
        .collect()
}
