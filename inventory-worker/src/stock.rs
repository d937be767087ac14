//! The stock: products with their levels, reservations, and the ids of changes that were made. Pure: no clock, no
//! I/O. It changes only by facts, and every fact that the rules permit keeps 0 ≤ reserved ≤ on_hand.

pub mod bounds;
pub mod draft;
pub mod fact;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod horizon;
pub mod key;
pub mod reservation;
pub mod rules;
pub mod snapshot;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use uuid::Uuid;

pub use bounds::Amounts;
pub use draft::Draft;
pub use fact::{Entry, Fact};
pub use horizon::Horizon;
pub use reservation::{Line, Phase, Release, Reservation};
pub use rules::{Command, Refusal, Shortage};

/// Units of one product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Level {
    /// In the warehouse, reserved ones included.
    pub on_hand: u32,
    /// Promised to orders.
    pub reserved: u32,
}

impl Level {
    /// What a new order can get.
    pub fn available(self) -> u32 {
        self.on_hand.saturating_sub(self.reserved)
    }
}

/// The state after the ledger's entries up to `sequence`.
#[derive(Debug, Clone, Default)]
pub struct Stock {
    sequence: u64,
    names: Vec<Arc<str>>,
    index: HashMap<Arc<str>, u32, RandomState>,
    sorted: BTreeSet<Arc<str>>,
    levels: Vec<Level>,
    /// Numbers of removed products, for reuse.
    free: Vec<u32>,
    reservations: HashMap<Uuid, Reservation, RandomState>,
    expiring: BTreeSet<(u64, Uuid)>,
    adjustments: HashMap<Arc<str>, Adjusted>,
    horizon: Horizon,
    last: Option<(Uuid, u64)>,
}

/// A change of stock that was made: enough to recognise a repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adjusted {
    /// A hash of its content.
    pub fingerprint: u64,
    /// Fact time, Unix ms.
    pub at: u64,
    /// Whether its key certainly is a known caller's. One that an earlier build wrote may be any caller's.
    pub known: bool,
}

/// A fact that contradicts the state: the ledger was written by something else, or is damaged.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the ledger contradicts itself at sequence {sequence}: {why}")]
pub struct Contradiction {
    /// The entry.
    pub sequence: u64,
    /// What does not fit.
    pub why: String,
}

impl Stock {
    /// The last entry that it includes; 0 for none.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The worker and batch of the last entry, if known.
    pub fn last_entry(&self) -> Option<(Uuid, u64)> {
        self.last
    }

    /// The level of a product; `None` for one that was never counted or adjusted.
    pub fn level(&self, product: &str) -> Option<Level> {
        self.index.get(product).and_then(|index| self.levels.get(*index as usize)).copied()
    }

    /// What a new order can get of a product; 0 for an unknown one.
    pub fn available(&self, product: &str) -> u32 {
        self.level(product).map_or(0, Level::available)
    }

    /// The reservation of an order.
    pub fn reservation(&self, order: &Uuid) -> Option<&Reservation> {
        self.reservations.get(order)
    }

    /// A change of stock that was made under this key.
    pub fn adjusted(&self, request: &str) -> Option<Adjusted> {
        self.adjustments.get(request).copied()
    }

    /// The orders that have a reservation, in no order.
    pub fn orders(&self) -> impl Iterator<Item = &Uuid> {
        self.reservations.keys()
    }

    /// What an order's reservation holds: product and units.
    pub fn items(&self, order: &Uuid) -> impl Iterator<Item = (&str, u32)> + Clone {
        let lines = self.reservations.get(order).map(|reservation| &*reservation.items).unwrap_or_default();
        lines.iter().map(|line| (self.name(line.product), line.quantity))
    }

    /// Products with their levels in ascending order, after the given one.
    pub fn products_after<'a>(&'a self, after: Option<&str>) -> impl Iterator<Item = (&'a str, Level)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.sorted
            .range::<str, _>((from, Unbounded))
            .map(|name| (&**name, self.level(name).unwrap_or_default()))
    }

    /// Orders whose reservation expired by `now` (Unix ms) without an order, oldest first.
    pub fn expired(&self, now: u64) -> impl Iterator<Item = Uuid> {
        self.expiring.iter().take_while(move |(at, _)| *at <= now).map(|(_, order)| *order)
    }

    /// How many reservations there are: `(all, those that may expire)`.
    pub fn reservations(&self) -> (usize, usize) {
        (self.reservations.len(), self.expiring.len())
    }

    /// How many products there are.
    pub fn products(&self) -> usize {
        self.index.len()
    }

    /// The amounts of everything that is bounded.
    pub fn amounts(&self) -> Amounts {
        Amounts {
            products: self.products(),
            adjustments: self.adjustments.len(),
            reservations: self.reservations.len(),
        }
    }

    /// How far back finished ids were forgotten.
    pub fn horizon(&self) -> Horizon {
        self.horizon
    }

    /// How many ids a `Forgot` of this horizon would drop.
    pub fn forgettable(&self, horizon: Horizon) -> usize {
        self.reservations.values().filter(|reservation| reservation.forgettable(horizon)).count()
            + self.adjustments.values().filter(|adjusted| adjusted.at <= horizon.before).count()
    }

    /// Applies the entry after the last one.
    pub fn apply(&mut self, sequence: u64, entry: &Entry) -> Result<(), Contradiction> {
        let wrong = |why: String| Contradiction { sequence, why };
        if self.sequence.checked_add(1) != Some(sequence) {
            return Err(wrong(format!("it follows {}", self.sequence)));
        }
        if let (Some(known), Some(expected)) = (self.last, entry.previous)
            && known != expected
        {
            return Err(wrong("its writer knew another previous entry".to_owned()));
        }
        for fact in &entry.facts {
            self.take(fact, entry.at).map_err(wrong)?;
        }
        self.sequence = sequence;
        self.last = Some((entry.worker, entry.batch));
        Ok(())
    }

    fn take(&mut self, fact: &Fact, at: u64) -> Result<(), String> {
        match fact {
            Fact::Reserved { order, items, expires_at, fence } => {
                if self.reservations.get(order).is_some_and(|reservation| !reservation.finished()) {
                    return Err(format!("{order} already has a reservation"));
                }
                let lines = self.lines(items)?;
                for line in &lines {
                    self.promise(*line)?;
                }
                let phase = Phase::Held { expires_at: *expires_at };
                let new = Reservation { items: lines.into(), phase, fence: *fence, changed: at };
                self.expiring.extend(expires_at.map(|expires_at| (expires_at, *order)));
                self.reservations.insert(*order, new);
            }
            Fact::Bound { order, event } => {
                self.turn(order, Phase::Bound { event: *event }, at)?;
            }
            Fact::Released { order, by } => {
                let lines = self.turn(order, Phase::Released { by: *by }, at)?;
                lines.iter().try_for_each(|line| self.withdraw(*line, false))?;
            }
            Fact::Shipped { order, event } => {
                let lines = self.turn(order, Phase::Shipped { event: *event }, at)?;
                lines.iter().try_for_each(|line| self.withdraw(*line, true))?;
            }
            Fact::Adjusted { request, lines, reason, known } => {
                for (product, delta) in lines {
                    let on_hand = self.level(product).unwrap_or_default().on_hand;
                    let on_hand = on_hand.checked_add_signed(*delta).ok_or("on_hand is out of range")?;
                    self.set(product, on_hand)?;
                }
                let fingerprint = fact::fingerprint(lines, reason);
                self.adjustments.insert(Arc::from(&**request), Adjusted { fingerprint, at, known: *known });
            }
            Fact::Counted { lines } => {
                lines.iter().try_for_each(|(product, on_hand)| self.set(product, *on_hand))?;
            }
            Fact::Removed { products } => products.iter().try_for_each(|product| self.remove(product))?,
            Fact::Forgot(horizon) => {
                self.reservations.retain(|_, reservation| !reservation.forgettable(*horizon));
                self.adjustments.retain(|_, adjusted| adjusted.at > horizon.before);
                self.horizon = self.horizon.later(*horizon);
            }
        }
        Ok(())
    }

    fn lines(&self, items: &[(Box<str>, u32)]) -> Result<Vec<Line>, String> {
        let line = |(product, quantity): &(Box<str>, u32)| match self.index.get(&**product) {
            Some(index) => Ok(Line { product: *index, quantity: *quantity }),
            None => Err(format!("product {product} is unknown")),
        };
        items.iter().map(line).collect()
    }

    fn set(&mut self, product: &str, on_hand: u32) -> Result<(), String> {
        let index = self.intern(product);
        let level = self.level_mut(index)?;
        level.on_hand = on_hand;
        if level.reserved > on_hand {
            Err(format!("more of {product} is reserved than on hand"))
        } else {
            Ok(())
        }
    }

    fn promise(&mut self, line: Line) -> Result<(), String> {
        let level = self.level_mut(line.product)?;
        level.reserved = level.reserved.checked_add(line.quantity).ok_or("reserved is out of range")?;
        if level.reserved > level.on_hand { Err("more is reserved than on hand".to_owned()) } else { Ok(()) }
    }

    /// Subtracts units from the reserved ones, and from stock on hand if they are shipped.
    fn withdraw(&mut self, line: Line, shipped: bool) -> Result<(), String> {
        let level = self.level_mut(line.product)?;
        level.reserved = level.reserved.checked_sub(line.quantity).ok_or("reserved falls below zero")?;
        if shipped {
            level.on_hand = level.on_hand.checked_sub(line.quantity).ok_or("on_hand falls below zero")?;
        }
        Ok(())
    }

    /// Moves an active reservation to another phase, and returns what it held. A finished one holds nothing.
    fn turn(&mut self, order: &Uuid, phase: Phase, at: u64) -> Result<Box<[Line]>, String> {
        let reservation =
            self.reservations.get_mut(order).ok_or_else(|| format!("{order} has no reservation"))?;
        match reservation.phase {
            Phase::Held { expires_at } => {
                if let Some(expires_at) = expires_at {
                    self.expiring.remove(&(expires_at, *order));
                }
            }
            Phase::Bound { .. } if !matches!(phase, Phase::Bound { .. }) => {}
            _ => return Err(format!("{order} is already {:?}", reservation.phase)),
        }
        reservation.phase = phase;
        reservation.changed = at;
        Ok(if reservation.finished() { std::mem::take(&mut reservation.items) } else { Box::default() })
    }

    fn intern(&mut self, product: &str) -> u32 {
        if let Some(index) = self.index.get(product) {
            return *index;
        }
        let name = Arc::<str>::from(product);
        let index = self.free.pop().unwrap_or_else(|| u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        match self.names.get_mut(index as usize) {
            Some(free) => *free = name.clone(),
            None => {
                self.names.push(name.clone());
                self.levels.push(Level::default());
            }
        }
        self.sorted.insert(name.clone());
        self.index.insert(name, index);
        index
    }

    /// Nothing refers to the number of a product without reservations.
    fn remove(&mut self, product: &str) -> Result<(), String> {
        if self.level(product) != Some(Level::default()) {
            return Err(format!("{product} was removed, but is in stock or unknown"));
        }
        self.sorted.remove(product);
        if let Some(index) = self.index.remove(product) {
            self.names[index as usize] = "".into();
            self.free.push(index);
        }
        Ok(())
    }

    fn level_mut(&mut self, index: u32) -> Result<&mut Level, String> {
        self.levels.get_mut(index as usize).ok_or_else(|| format!("there is no product number {index}"))
    }

    fn name(&self, index: u32) -> &str {
        self.names.get(index as usize).map_or("", |name| name)
    }
}

/// Equal if they have the same meaning, whatever the order in which products were first seen.
impl PartialEq for Stock {
    fn eq(&self, other: &Stock) -> bool {
        let same = |(order, mine): (&Uuid, &Reservation)| {
            other.reservations.get(order).is_some_and(|theirs| {
                mine.phase == theirs.phase
                    && mine.fence == theirs.fence
                    && mine.changed == theirs.changed
                    && self.items(order).eq(other.items(order))
            })
        };
        self.sequence == other.sequence
            && self.last == other.last
            && self.horizon == other.horizon
            && self.expiring == other.expiring
            && self.adjustments == other.adjustments
            && self.products_after(None).eq(other.products_after(None))
            && self.reservations.len() == other.reservations.len()
            && self.reservations.iter().all(same)
    }
}
