//! The program `loadtest` as it is run, against a real gateway.

// One binary: items that its modules share are visible to nothing else.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

#[path = "../../../tests/pki.rs"]
mod pki;
#[path = "../../../tests/program.rs"]
mod program;
mod secure;
