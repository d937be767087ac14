//! The program `inventory-worker` as it is run: its arguments, variables, streams and files.

// One binary: what is visible to its parts is visible to nobody else.
#![allow(unreachable_pub, clippy::unwrap_used)]

mod configuration;
#[path = "../../tests/emptied.rs"]
mod emptied;
mod lines;
#[path = "../../tests/program.rs"]
mod program;
mod requests;
#[path = "../../tests/service.rs"]
mod service;
mod stock;
mod variables;
#[path = "../../tests/versions.rs"]
mod versions;

/// The program.
const WORKER: &str = env!("CARGO_BIN_EXE_inventory-worker");
