//! Bounds on what the stock comes to hold by its callers' will: each entry stays in memory, and in every snapshot, so
//! without them whoever may name new ones decides how much memory a worker needs. Commands are held against them;
//! facts never are: they happened. Pure.

use std::fmt;

/// What is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Products that were named once and not removed.
    Products,
    /// Ids of adjustments that are remembered.
    Adjustments,
    /// Reservations that are known, finished ones included.
    Reservations,
}

/// A number for each kind: what there is, or what there may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Products.
    pub products: usize,
    /// Ids of adjustments.
    pub adjustments: usize,
    /// Reservations.
    pub reservations: usize,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Kind; 3] = [Kind::Products, Kind::Adjustments, Kind::Reservations];

    /// What there is of it, in words.
    pub const fn noun(self) -> &'static str {
        match self {
            Kind::Products => "products",
            Kind::Adjustments => "remembered adjustments",
            Kind::Reservations => "known reservations",
        }
    }

    /// The variable that sets its bound.
    pub const fn variable(self) -> &'static str {
        match self {
            Kind::Products => "GW_MAX_PRODUCTS",
            Kind::Adjustments => "GW_MAX_ADJUSTMENTS",
            Kind::Reservations => "GW_MAX_RESERVATIONS",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noun())
    }
}

impl Amounts {
    /// No bounds.
    pub const ANY: Amounts =
        Amounts { products: usize::MAX, adjustments: usize::MAX, reservations: usize::MAX };

    /// The number for a kind.
    pub const fn of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Products => self.products,
            Kind::Adjustments => self.adjustments,
            Kind::Reservations => self.reservations,
        }
    }
}
