//! The order system's side of the gateway: OrderService, which plugs into the gRPC port, and the commands for its
//! streams. Orders as values are in `order`, the service in `service`, its lists and watches in `feed`.

pub mod backup;
pub mod dead_letters;
pub mod feed;
pub mod order;
pub mod reconcile;
#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
pub mod served;
pub mod service;
mod share;
mod typed;
pub mod waits;

/// Explains a command's permission violation.
const OPERATORS: &str = "this command is for the role operator";

/// Whether this is what a stream without a leader or a quorum causes.
fn may_lack_leader(cause: &(dyn std::error::Error + 'static)) -> bool {
    use nats::StoreError;
    use nats::backup::BackupError;
    match (cause.downcast_ref::<StoreError>(), cause.downcast_ref::<BackupError>()) {
        (Some(store), _) | (None, Some(BackupError::Store(store))) => store.may_lack_leader(),
        (None, _) => false,
    }
}

/// Adds to a command's error where to look, if a stream without a leader, or an inventory without workers, may be the cause.
fn explained(error: anyhow::Error) -> anyhow::Error {
    let hint = error.chain().find_map(|cause| {
        if may_lack_leader(cause) {
            return Some(nats::NO_LEADER);
        }
        let failure = cause.downcast_ref::<wire::Failure>()?;
        failure
            .is(wire::Reason::NoResponders)
            .then_some("start the workers first: they answer for the ledger")
    });
    match hint {
        Some(hint) => anyhow::anyhow!("{}; {hint}", telemetry::log::chain(&error)),
        None => error,
    }
}
