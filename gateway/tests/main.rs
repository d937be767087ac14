//! The program `gateway` as a process: its arguments, variables, standard streams and files.

// One test binary: nothing in it is visible outside.
#![allow(unreachable_pub, clippy::unwrap_used)]

mod bucket;
mod configuration;
mod descriptors;
mod doctor;
mod hangup;
mod health;
mod logs;
mod proxies;
#[cfg(feature = "dev")]
mod reference;
mod routes;
mod sealed;
mod system;
mod unread;
mod variables;

/// Shared with the other programs' tests.
#[path = "../../tests/harness"]
mod harness {
    pub mod command;
    #[allow(dead_code)]
    pub mod pki;
    pub mod process;
    pub mod variables;
    pub mod version;
}

/// The program.
const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");
