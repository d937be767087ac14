//! The program `loadtest` as it is run, against a real gateway.

// One binary: items that its modules share are visible to nothing else.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

mod secure;

/// Shared with the other programs' tests.
#[path = "../../../tests/harness"]
mod harness {
    pub mod command;
    pub mod pki;
}
