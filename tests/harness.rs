//! What the tests share: systems to start, in one line, and what happens to them. Nothing here is a test. `command`,
//! `process`, `variables` and `version` are for the tests of the programs alone, which include them by path.

pub mod auth;
pub mod client;
pub mod cluster;
pub mod codec;
pub mod deployment;
pub mod dynamic;
// The only code that writes HTTP/2 frames by hand.
#[path = "../crates/loadtest/src/flood/wire.rs"]
#[allow(dead_code)]
pub mod frames;
pub mod http;
pub mod issuer;
pub mod pki;
pub mod proxy;
pub mod roles;
pub mod seed;
pub mod service;
pub mod shelf;
pub mod status;
pub mod system;
pub mod tls;
pub mod worker;
