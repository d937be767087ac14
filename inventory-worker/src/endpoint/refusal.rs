//! A refusal of the rules as a failure for the caller.

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
    let each = |shortages: Vec<Shortage>, describe: fn(&Shortage) -> String| {
        shortages.into_iter().map(move |short| (short.product.to_string(), describe(&short)))
    };
    match refusal {
        Refusal::Short(shortages) => Failure::stock(
            Reason::InsufficientStock,
            each(shortages, |short| format!("wanted {}, available {}", short.wanted, short.available)),
        ),
        Refusal::BelowReserved(shortages) => Failure::stock(
            Reason::BelowReserved,
            each(shortages, |short| {
                format!("only {} on hand, of which {} are reserved", short.available, short.wanted)
            }),
        ),
        Refusal::AboveLimit(products) => {
            let over = |product: Box<str>| (product.into_string(), "over 2,147,483,647 units".to_owned());
            Failure::stock(Reason::AboveLimit, products.into_iter().map(over))
        }
        Refusal::Reused => {
            Failure::new(Reason::RequestIdReused, format!("the id {id} stands for another content already"))
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
