//! The demo catalogue: a few products with stock, loaded once per data folder, through the gateway as any client
//! would. Must never be loaded over stock that is there.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use contract::inventory::v1::{AdjustStockRequest, Adjustment};

use crate::edge::probe::Probe;

/// Products and units.
const PRODUCTS: [(&str, i32); 12] = [
    ("armchair", 15),
    ("basket", 120),
    ("bookshelf", 25),
    ("candle", 1_000),
    ("clock", 60),
    ("desk", 20),
    ("lamp", 100),
    ("mirror", 40),
    ("plant-pot", 300),
    ("rug", 35),
    ("sofa", 5),
    ("table", 1),
];
/// A repeat within the time that ids are remembered does nothing.
const REQUEST_ID: &str = "dev-demo-catalogue";
/// A file that says, for ever, that it was done.
const MARK: &str = "catalogue-loaded";

/// Loads the catalogue if this folder has not seen it, and says what was done.
pub(super) async fn load(folder: &Path, gateway: SocketAddr) -> anyhow::Result<String> {
    let mark = folder.join(MARK);
    if mark.exists() {
        return Ok("loaded before; stock is as it was left".to_owned());
    }
    let adjustments = PRODUCTS
        .iter()
        .map(|(product, units)| Adjustment { product_id: (*product).to_owned(), delta: *units })
        .collect();
    let request = AdjustStockRequest {
        request_id: REQUEST_ID.to_owned(),
        adjustments,
        reason: "demo catalogue".to_owned(),
    };
    Probe::connect(gateway).await?.adjust(request).await.context("cannot load the demo catalogue")?;
    cli::file::replace(&mark, |_| Ok(())).with_context(|| format!("cannot write {}", mark.display()))?;
    Ok(format!("{} products loaded", PRODUCTS.len()))
}
