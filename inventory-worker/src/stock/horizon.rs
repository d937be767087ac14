//! How far back the stock has forgotten finished ids. Must not decide when it forgets.

/// How far back finished ids were forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Horizon {
    /// Fact time, Unix ms.
    pub before: u64,
    /// The sequence of ORDERS up to which the consumer has acknowledged everything.
    pub floor: u64,
}

impl Horizon {
    /// The later of two: a horizon never moves back.
    #[must_use]
    pub fn later(self, other: Horizon) -> Horizon {
        Horizon { before: self.before.max(other.before), floor: self.floor.max(other.floor) }
    }
}
