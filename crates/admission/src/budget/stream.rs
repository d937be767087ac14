//! The kinds of streams whose number is limited. Must not count them.

/// Streams that stay open as long as the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// Health watches.
    Watch,
    /// Reflection.
    Reflection,
}

impl StreamKind {
    pub(super) const ALL: [StreamKind; 2] = [StreamKind::Watch, StreamKind::Reflection];

    pub(super) const fn name(self) -> &'static str {
        match self {
            StreamKind::Watch => "health watches",
            StreamKind::Reflection => "reflection streams",
        }
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            StreamKind::Watch => "health_watch",
            StreamKind::Reflection => "reflection",
        }
    }
}
