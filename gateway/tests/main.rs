//! The program `gateway` as a process: its arguments, variables, standard streams and files.

// One test binary: nothing in it is visible outside.
#![allow(unreachable_pub, clippy::unwrap_used)]

mod configuration;
mod descriptors;
#[path = "../../tests/emptied.rs"]
mod emptied;
mod health;
mod logs;
#[path = "../../tests/pki.rs"]
#[allow(dead_code)]
mod pki;
#[path = "../../tests/program.rs"]
mod program;
#[cfg(feature = "dev")]
mod reference;
mod sealed;
#[path = "../../tests/service.rs"]
mod service;
mod system;
mod unread;
mod variables;
#[path = "../../tests/versions.rs"]
mod versions;

/// The program.
const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");
