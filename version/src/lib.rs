//! Which version of the programs this is, and which commit it was built from. A crate of its own, so that a commit builds
//! anew only what says it. Must never know who asks.

/// The version, as Cargo.toml has it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit: 12 digits, what `GW_COMMIT` said when it was built, or `unknown`.
pub const COMMIT: &str = env!("COMMIT");
/// Both, as `--version` prints them.
pub const FULL: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COMMIT"), ")");
