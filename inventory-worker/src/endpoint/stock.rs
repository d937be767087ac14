//! Reading and adjusting stock: `check_inventory`, `get_stock`, `list_stock`, `adjust_stock`.

use std::sync::Arc;

use contract::Item;
use contract::inventory::v1::{
    AdjustStockRequest, AdjustStockResponse, GetStockRequest, GetStockResponse, ItemAvailability,
    ListStockRequest, ListStockResponse, Stock as StockOfProduct,
};
use contract::limits::{ADJUSTMENTS, Reader};
use contract::orders::v1::{CheckInventoryRequest, CheckInventoryResponse};
use wire::{Failure, FieldViolation};

use super::context::{Inventory, RequestContext};
use super::{page, refusal};
use crate::ledger::{Decision, Denial};
use crate::stock::{Amounts, Command, Level, Stock, key};

/// "Available" is answered from memory at once; "not available" only after catching up.
pub async fn check(
    inventory: Arc<Inventory>,
    request: CheckInventoryRequest,
    context: RequestContext,
) -> Result<CheckInventoryResponse, Failure> {
    let mut reader = Reader::default();
    let items = Item::read_all(&mut reader, "items", &request.items);
    let items = reader.finish(items).map_err(Failure::invalid)?;
    let now = availability(&inventory.ledger.stock(), &items);
    if now.available {
        return Ok(now);
    }
    inventory.ledger.catch_up(context.deadline).await?;
    Ok(availability(&inventory.ledger.stock(), &items))
}

fn availability(stock: &Stock, items: &[Item]) -> CheckInventoryResponse {
    let items: Vec<ItemAvailability> = items
        .iter()
        .map(|item| ItemAvailability {
            product_id: item.product.to_string(),
            requested: item.quantity,
            available: stock.available(&item.product),
        })
        .collect();
    CheckInventoryResponse { available: items.iter().all(|item| item.available >= item.requested), items }
}

/// One product's stock.
pub async fn get(
    inventory: Arc<Inventory>,
    request: GetStockRequest,
    context: RequestContext,
) -> Result<GetStockResponse, Failure> {
    let mut reader = Reader::default();
    let product = reader.product_id("product_id", &request.product_id);
    let product = reader.finish(product).map_err(Failure::invalid)?;
    inventory.ledger.catch_up(context.deadline).await?;
    let level = inventory.ledger.stock().level(&product);
    let level = level.ok_or_else(|| Failure::not_found("product", &product))?;
    Ok(GetStockResponse { stock: Some(of_product(&product, level)) })
}

/// A page of products.
pub async fn list(
    inventory: Arc<Inventory>,
    request: ListStockRequest,
    context: RequestContext,
) -> Result<ListStockResponse, Failure> {
    let (size, after) = read_list(&request).map_err(Failure::invalid)?;
    inventory.ledger.catch_up(context.deadline).await?;
    let guard = inventory.ledger.stock();
    let mut products = guard.products_after(after.as_deref());
    let stock: Vec<StockOfProduct> =
        products.by_ref().take(size).map(|(product, level)| of_product(product, level)).collect();
    let more = products.next().is_some();
    let next_page_token =
        stock.last().filter(|_| more).map(|last| page::token(&last.product_id)).unwrap_or_default();
    Ok(ListStockResponse { stock, next_page_token })
}

/// Parses the page size, and after which product the page begins.
pub(super) fn read_list(request: &ListStockRequest) -> Result<(usize, Option<String>), Vec<FieldViolation>> {
    let mut reader = Reader::default();
    let size = reader.page_size("page_size", request.page_size);
    let after = page::after(&mut reader, &request.page_token, page::product, "ListStock");
    reader.finish(size.zip(after))
}

/// Adds to and takes from stock on hand, all or none, once per caller and request_id.
pub async fn adjust(
    inventory: Arc<Inventory>,
    request: AdjustStockRequest,
    context: RequestContext,
) -> Result<AdjustStockResponse, Failure> {
    let (id, lines, reason) = read(&request).map_err(Failure::invalid)?;
    let _turn = inventory.wide.turn(lines.len(), context.deadline).await?;
    let request = key::of(&context.principal, &id);
    let share = inventory.share(&context, |stock| added(stock, &request, &lines)).await;
    let share = share.map_err(|failure| failure.with("request_id", &*id))?;
    let end = inventory.ledger.submit(Command::Adjust { request, lines, reason }, context.deadline).await;
    share.settle(&end);
    match end {
        Ok(Decision::Levels(levels)) => Ok(AdjustStockResponse {
            stock: levels.iter().map(|(product, level)| of_product(product, *level)).collect(),
        }),
        Ok(Decision::Done | Decision::Reserved { .. }) => Ok(AdjustStockResponse::default()),
        Err(Denial::Failed(failure)) => Err(failure.with("request_id", &*id)),
        Err(denial) => Err(refusal::failure(denial, &id)),
    }
}

/// What a change would add to what the stock keeps.
fn added(stock: &Stock, request: &str, lines: &[(Box<str>, i32)]) -> Amounts {
    if stock.adjusted(request).is_some() {
        return Amounts::default();
    }
    let products = lines.iter().filter(|(product, _)| stock.level(product).is_none()).count();
    Amounts { products, adjustments: 1, reservations: 0 }
}

pub(super) type Adjustment = (Box<str>, Vec<(Box<str>, i32)>, Box<str>);

pub(super) fn read(request: &AdjustStockRequest) -> Result<Adjustment, Vec<FieldViolation>> {
    let mut reader = Reader::default();
    let id = reader.request_id("request_id", &request.request_id);
    if request.request_id.is_empty() {
        reader.fault("request_id", "is required, so that a repeat is safe");
    }
    let reason = reader.reason("reason", &request.reason);
    if !ADJUSTMENTS.contains(&request.adjustments.len()) {
        reader
            .fault("adjustments", format!("must have 1 to 1,000 entries, not {}", request.adjustments.len()));
        return reader.finish(None);
    }
    let mut seen = std::collections::HashSet::new();
    let mut lines = Vec::with_capacity(request.adjustments.len());
    for (index, adjustment) in request.adjustments.iter().enumerate() {
        let product = reader.product_id(format!("adjustments[{index}].product_id"), &adjustment.product_id);
        if product.is_some() && !seen.insert(adjustment.product_id.as_str()) {
            reader.fault(format!("adjustments[{index}].product_id"), "is a duplicate");
        }
        if adjustment.delta == 0 || adjustment.delta == i32::MIN {
            reader.fault(
                format!("adjustments[{index}].delta"),
                "must be -2,147,483,647 to 2,147,483,647, not 0",
            );
        }
        lines.extend(product.map(|product| (product, adjustment.delta)));
    }
    reader.finish(id.zip(reason).map(|(id, reason)| (id, lines, reason)))
}

fn of_product(product: &str, level: Level) -> StockOfProduct {
    StockOfProduct {
        product_id: product.to_owned(),
        on_hand: level.on_hand,
        reserved: level.reserved,
        available: level.available(),
    }
}
