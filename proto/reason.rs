//! The reasons of the order system, beside those of the gateway ([`wire::Reason`]), and failures that only it has.

use wire::failure::{Detail, Violation};
use wire::{ErrorReason, Failure};

wire::reasons! {
    /// Why the order system refused a call. Stable: clients branch on the name.
    OrderReason {
        /// Less stock than requested; PreconditionFailure lists the products.
        InsufficientStock = "INSUFFICIENT_STOCK" => FailedPrecondition;
        /// The status machine does not allow this step.
        IllegalTransition = "ILLEGAL_TRANSITION" => FailedPrecondition;
        /// The order was shipped or cancelled: its id accepts no new reservation.
        OrderFinished = "ORDER_FINISHED" => FailedPrecondition;
        /// The order was recorded: cancel it instead of releasing its stock.
        OrderExists = "ORDER_EXISTS" => FailedPrecondition;
        /// Stock on hand would fall below what is reserved.
        BelowReserved = "BELOW_RESERVED" => FailedPrecondition;
        /// Stock on hand would exceed the limit.
        AboveLimit = "ABOVE_LIMIT" => FailedPrecondition;
        /// An event or the record contradicts the rules of the stock: an operator has to look.
        Unsettled = "UNSETTLED" => FailedPrecondition;
        /// The order changed since its etag was read.
        EtagMismatch = "ETAG_MISMATCH" => Aborted;
        /// The reservation expired before the order was recorded: repeat with the same request_id.
        ReservationExpired = "RESERVATION_EXPIRED" => Aborted;
        /// The request_id was used with other content.
        RequestIdReused = "REQUEST_ID_REUSED" => AlreadyExists;
        /// The last entry of this order's record cannot be read: an operator has to look.
        RecordUnreadable = "RECORD_UNREADABLE" => DataLoss;
        /// The gateway is still building its index of orders.
        IndexBuilding = "INDEX_BUILDING" => Unavailable;
        /// The client of a watch fell behind.
        SlowWatcher = "SLOW_WATCHER" => Unavailable;
        /// A limit on what is kept is reached: products, adjustments or reservations.
        LimitReached = "LIMIT_REACHED" => ResourceExhausted;
    }
}

/// Too little or too much stock: products, and what is wrong with each.
pub fn stock(reason: impl ErrorReason, products: impl IntoIterator<Item = (String, String)>) -> Failure {
    let violation = |(product, description): (String, String)| Violation {
        kind: "STOCK".to_owned(),
        subject: format!("products/{product}"),
        description,
    };
    let violations: Vec<Violation> = products.into_iter().map(violation).collect();
    let first = violations.first().map_or_else(
        || "the items are not available together".to_owned(),
        |first| format!("{}: {}", first.subject.trim_start_matches("products/"), first.description),
    );
    let message = match violations.len() {
        0 | 1 => first,
        more => format!("{first} (and {} more)", more - 1),
    };
    Failure::new(reason, message).detail(Detail::Precondition(violations))
}

#[cfg(test)]
mod tests {
    use wire::Reason;

    use super::*;

    const ERRORS: &str = include_str!("../docs/errors.md");

    #[test]
    fn the_document_of_errors_has_every_reason_with_its_status() {
        let rows = || ERRORS.lines().filter(|line| line.starts_with("| `"));
        let gateway = Reason::ALL.iter().map(|reason| (reason.name(), reason.code()));
        let orders = OrderReason::ALL.iter().map(|reason| (reason.name(), reason.code()));
        for (name, status) in gateway.chain(orders) {
            let quoted = format!("`{name}`");
            let row = rows().find(|row| row.split('|').nth(1).is_some_and(|cell| cell.contains(&quoted)));
            let code = row.and_then(|row| row.split('|').nth(2)).map(str::trim);
            assert_eq!(
                code.map(|code| code.replace('_', "").to_lowercase()),
                Some(format!("{status:?}").to_lowercase()),
                "{name}"
            );
        }
    }
}
