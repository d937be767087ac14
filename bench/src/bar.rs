//! The progress bar. Nothing is drawn where stderr is no terminal. Must never know what is counted.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for so many steps, with what they do in front.
pub(crate) fn bar(steps: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>12} {wide_bar} {pos}/{len} {per_sec} eta {eta} {msg}");
    ProgressBar::new(steps as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_prefix(what)
}

/// A line that counts, where nobody knows how many there will be.
pub(crate) fn counter(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>12} {spinner} {pos} {msg}");
    ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        .with_prefix(what)
}
