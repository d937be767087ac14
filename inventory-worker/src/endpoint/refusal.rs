//! A refusal of the rules as a failure for the caller.

use contract::failure::{Detail, Violation};
use contract::{Delivered, Failure, Reason};

use crate::ledger::Denial;
use crate::stock::{Refusal, Shortage};

/// The failure of a command that was denied. `id` is the order's or the request's.
pub fn failure(denial: Denial, id: &str) -> Failure {
    match denial {
        Denial::Failed(failure) => failure,
        Denial::Refused(refusal) => refused(refusal, id).delivered(Delivered::Yes),
    }
}

fn refused(refusal: Refusal, id: &str) -> Failure {
    match refusal {
        Refusal::Short(shortages) => shortage(Reason::InsufficientStock, &shortages, |short| {
            format!("wanted {}, available {}", short.wanted, short.available)
        }),
        Refusal::BelowReserved(shortages) => shortage(Reason::BelowReserved, &shortages, |short| {
            format!("only {} on hand, of which {} are reserved", short.available, short.wanted)
        }),
        Refusal::AboveLimit(products) => {
            let violations =
                products.iter().map(|product| violation(product, "over 2,147,483,647 units".to_owned()));
            Failure::new(Reason::AboveLimit, "stock on hand would exceed its limit")
                .detail(Detail::Precondition(violations.collect()))
        }
        Refusal::Reused => {
            Failure::new(Reason::RequestIdReused, format!("{id} stands for another content already"))
                .with("id", id)
        }
        Refusal::Finished => {
            Failure::new(Reason::OrderFinished, format!("the order {id} was shipped or cancelled"))
                .with("order_id", id)
        }
        Refusal::Behind => Failure::new(Reason::Contention, "this worker is behind; repeat")
            .retry_after(link::failure::RETRY),
    }
}

fn shortage(reason: Reason, shortages: &[Shortage], describe: impl Fn(&Shortage) -> String) -> Failure {
    let first =
        shortages.first().map(|short| format!("{}: {}", short.product, describe(short))).unwrap_or_default();
    let message = match shortages.len() {
        0 | 1 => first,
        more => format!("{first} (and {} more)", more - 1),
    };
    let violations = shortages.iter().map(|short| violation(&short.product, describe(short))).collect();
    Failure::new(reason, message).detail(Detail::Precondition(violations))
}

fn violation(product: &str, description: String) -> Violation {
    Violation { kind: "STOCK".to_owned(), subject: format!("products/{product}"), description }
}
