//! Converts a refusal of the rules to a failure for the caller.

use contract::OrderReason;
use wire::failure::Detail;
use wire::{Delivered, Failure, Reason};

use crate::ledger::Denial;
use crate::stock::bounds::LimitKind;
use crate::stock::{Refusal, Shortage};

/// The failure of a command that was denied. `id` is the order's or the request's.
pub fn failure(denial: Denial, id: &str) -> Failure {
    match denial {
        Denial::Failed(failure) => failure,
        Denial::Refused(refusal) => refused(refusal, id).delivered(Delivered::Yes),
    }
}

fn refused(refusal: Refusal, id: &str) -> Failure {
    let each = |shortages: Vec<Shortage>, describe: fn(&Shortage) -> String| {
        shortages.into_iter().map(move |short| (short.product.to_string(), describe(&short)))
    };
    match refusal {
        Refusal::Short(shortages) => contract::reason::stock(
            OrderReason::InsufficientStock,
            each(shortages, |short| format!("wanted {}, available {}", short.wanted, short.available)),
        ),
        Refusal::BelowReserved(shortages) => contract::reason::stock(
            OrderReason::BelowReserved,
            each(shortages, |short| {
                format!("only {} on hand, {} of them reserved", short.available, short.wanted)
            }),
        ),
        Refusal::AboveLimit(products) => {
            let over = |product: Box<str>| (product.into_string(), "over 2,147,483,647 units".to_owned());
            contract::reason::stock(OrderReason::AboveLimit, products.into_iter().map(over))
        }
        Refusal::Full { kind, limit } => full(kind, limit),
        Refusal::InStock(products) => contract::reason::stock(
            OrderReason::BelowReserved,
            each(products, |short| format!("{} on hand, {} reserved", short.available, short.wanted)),
        ),
        Refusal::Reused => Failure::new(
            OrderReason::RequestIdReused,
            format!("the id {id} was already used with other content"),
        )
        .with("id", id),
        Refusal::Finished => {
            Failure::new(OrderReason::OrderFinished, format!("the order {id} was shipped or cancelled"))
                .with("order_id", id)
        }
        Refusal::Behind => Failure::new(Reason::Contention, "this worker is behind; repeat")
            .retry_after(nats::failure::RETRY),
    }
}

fn full(kind: LimitKind, limit: usize) -> Failure {
    let how = match kind {
        LimitKind::Products => "`inventory-worker stock remove --zero` removes empty ones; or",
        LimitKind::Adjustments => "the oldest are forgotten after GW_ID_HORIZON; to allow more,",
        LimitKind::Reservations => {
            "those of finished orders are forgotten after GW_ID_HORIZON, those of unfinished ones stay; to allow more,"
        }
    };
    let message = format!("the limit of {limit} {kind} is reached; {how} raise {}", kind.variable());
    Failure::new(OrderReason::LimitReached, message)
        .with("limit", limit.to_string())
        .with("of", kind.noun())
        .detail(Detail::Quota { subject: kind.noun().to_owned(), description: format!("at most {limit}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ledger_says_that_unfinished_orders_are_not_forgotten() {
        let failure = full(LimitKind::Reservations, 5).to_string();
        assert!(failure.contains("those of unfinished ones stay"), "{failure}");
        assert!(failure.contains("raise GW_MAX_RESERVATIONS"), "{failure}");
    }
}
