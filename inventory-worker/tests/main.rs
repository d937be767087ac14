//! The program `inventory-worker` as users run it: arguments, environment variables, streams and files.

// One binary, so items that its modules share are not public.
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
