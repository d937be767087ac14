//! The version of the programs, and the commit they were built from. A separate crate, so that a new commit rebuilds
//! only the code that prints it. Must not depend on its users.

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

/// The version in Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit: 12 digits, the value of `GW_COMMIT` at build time, or `unknown`.
pub const COMMIT: &str = env!("COMMIT");
/// Both, as `--version` prints them.
pub const FULL: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COMMIT"), ")");
