//! The progress bar. It is drawn only if stderr is a terminal. Must not depend on what is counted.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for this many steps, prefixed with `what`.
pub(crate) fn bar(steps: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>12} {wide_bar} {pos}/{len} {per_sec} eta {eta} {msg}");
    ProgressBar::new(steps as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_prefix(what)
}

/// A counter, for when the total is unknown.
pub(crate) fn counter(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>12} {spinner} {pos} {msg}");
    ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        .with_prefix(what)
}
