//! Bounds on what the stock keeps on request: each entry stays in memory and in every snapshot, so without bounds the
//! callers would decide how much memory a worker needs. Commands are checked against them; facts never are, as they
//! have happened. Pure.

use std::fmt;

/// What is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    /// Products that were added and not removed.
    Products,
    /// Remembered ids of adjustments.
    Adjustments,
    /// Reservations, finished ones included.
    Reservations,
}

/// A number for each kind: an amount or a bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Products.
    pub products: usize,
    /// Ids of adjustments.
    pub adjustments: usize,
    /// Reservations.
    pub reservations: usize,
}

impl LimitKind {
    /// Each of them.
    pub const ALL: [LimitKind; 3] = [LimitKind::Products, LimitKind::Adjustments, LimitKind::Reservations];

    /// Its name in messages.
    pub const fn noun(self) -> &'static str {
        match self {
            LimitKind::Products => "products",
            LimitKind::Adjustments => "remembered adjustments",
            LimitKind::Reservations => "known reservations",
        }
    }

    /// The variable that sets its bound.
    pub const fn variable(self) -> &'static str {
        match self {
            LimitKind::Products => "GW_MAX_PRODUCTS",
            LimitKind::Adjustments => "GW_MAX_ADJUSTMENTS",
            LimitKind::Reservations => "GW_MAX_RESERVATIONS",
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noun())
    }
}

impl Amounts {
    /// No bounds.
    pub const ANY: Amounts =
        Amounts { products: usize::MAX, adjustments: usize::MAX, reservations: usize::MAX };

    /// The number for a kind.
    pub const fn of(&self, kind: LimitKind) -> usize {
        match kind {
            LimitKind::Products => self.products,
            LimitKind::Adjustments => self.adjustments,
            LimitKind::Reservations => self.reservations,
        }
    }
}
