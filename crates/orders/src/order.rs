//! Orders as values: what a request asks for, the state of an order, the events that change it, and who may see it.
//! Must do no I/O.

pub mod damage;
pub mod event;
#[cfg(any(test, fuzzing, feature = "fuzz"))]
pub mod fuzz;
pub mod model;
pub mod request;
pub mod status;
pub mod tenancy;

use wire::{Delivered, Failure, Reason};

/// An answer of a service or of the record breaks the contract. `what` is for the log, the message is for the caller.
pub(crate) fn violation(what: impl std::fmt::Display, message: &str) -> Failure {
    Failure::new(Reason::ContractViolation, message).delivered(Delivered::Yes).because(what)
}
