//! What calls do with orders: what a request asks for, the events that it writes, and who may see an order. Orders
//! themselves and their entries on the record are in `order_streams`. Must do no I/O.

pub mod damage;
pub mod event;
#[cfg(any(test, fuzzing, feature = "fuzz"))]
pub mod fuzz;
pub mod request;
pub mod tenancy;

use wire::{Delivered, Failure, Reason};

/// An answer of a service or of the record breaks the contract. `what` is for the log, the message is for the caller.
pub(crate) fn violation(what: impl std::fmt::Display, message: &str) -> Failure {
    Failure::new(Reason::ContractViolation, message).delivered(Delivered::Yes).because(what)
}
