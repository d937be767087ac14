//! The program `bench` as it is run, against a real gateway.

// One binary: what is visible to its parts is visible to nobody else.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

#[path = "../../tests/pki.rs"]
mod pki;
#[path = "../../tests/program.rs"]
mod program;
mod secure;
