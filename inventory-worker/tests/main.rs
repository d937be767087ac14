//! The program `inventory-worker` as users run it: arguments, environment variables, streams and files.

// One binary, so items that its modules share are not public.
#![allow(unreachable_pub, clippy::unwrap_used)]

mod configuration;
mod lines;
mod requests;
mod stock;
mod variables;

/// Shared with the other programs' tests.
#[path = "../../tests/harness"]
mod harness {
    pub mod command;
    pub mod process;
    pub mod variables;
    pub mod version;
}

/// The program.
const WORKER: &str = env!("CARGO_BIN_EXE_inventory-worker");
