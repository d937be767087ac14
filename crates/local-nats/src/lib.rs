//! Finds or installs a nats-server and runs it for development, tests and benchmarks.
//!
//! Owns the processes and files of a private nats-server. Must not depend on what is sent over it: no NATS
//! client, no subject, no stream.
//!
//! ```no_run
//! let mut server = local_nats::Server::start()?;
//! println!("{}", server.url());
//! server.kill(); // -9
//! server.restart()?; // same port, same data
//! # Ok::<(), local_nats::Error>(())
//! ```

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod binary;
mod cache;
mod cluster;
mod config;
mod error;
mod find;
mod folder;
mod go;
mod lock;
mod path;
mod paused;
mod port;
mod ready;
mod run;
mod server;
mod wait;
mod watchdog;
mod wheel;

pub use binary::{Binary, Origin, Unusable, Version};
pub use cluster::{Cluster, Routes};
pub use config::{Options, Ready};
pub use error::Error;
pub use find::{Attempt, Missing, find};
pub use port::spare_port;
pub use run::Failure;
pub use server::Server;
