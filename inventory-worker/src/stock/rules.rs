//! The rules: what a command may do to the stock. Pure: the time is part of the command.

use uuid::Uuid;

use super::bounds::LimitKind;
use super::reservation::{Phase, Release, Reservation};
use super::{Adjusted, Amounts, Fact, Horizon, Level, fact, key};
use contract::Item;
use contract::limits::ON_HAND;

/// The state on which the rules decide: the stock, or a draft of its next state.
pub trait View {
    /// The level of a known product.
    fn level(&self, product: &str) -> Option<Level>;
    /// An order's reservation.
    fn reservation(&self, order: &Uuid) -> Option<&Reservation>;
    /// Whether an order's reservation holds exactly these items, in any order.
    fn holds(&self, order: &Uuid, items: &[Item]) -> bool;
    /// A change of stock that was made.
    fn adjusted(&self, request: &str) -> Option<Adjusted>;
    /// How far back ids were forgotten.
    fn horizon(&self) -> Horizon;
    /// The amounts of what is bounded.
    fn amounts(&self) -> Amounts {
        Amounts::default()
    }
    /// The bounds.
    fn bounds(&self) -> Amounts {
        Amounts::ANY
    }
}

/// A command to the stock. Events and tombstones are sequences on ORDERS.
#[derive(Debug, Clone)]
pub enum Command {
    /// Reserve units for an order, all or none.
    Reserve {
        /// The order.
        order: Uuid,
        /// The units.
        items: Vec<Item>,
        /// When it expires without an order, Unix ms; `None`: when it is released.
        expires_at: Option<u64>,
    },
    /// The order exists, by this event.
    Bind(Uuid, u64),
    /// The order was cancelled, by this event.
    Cancel(Uuid, u64),
    /// The order was shipped, by this event.
    Ship(Uuid, u64),
    /// No order was recorded, by this tombstone.
    Expire(Uuid, u64),
    /// The order was shipped by this event, which the consumer has acknowledged: this reservation is a second one.
    Drop(Uuid, u64),
    /// The record has lost the order, by this tombstone, which was appended where the order would be.
    Disown(Uuid, u64),
    /// Change stock on hand, all or none.
    Adjust {
        /// The change's key.
        request: Box<str>,
        /// Product and change.
        lines: Vec<(Box<str>, i32)>,
        /// Why.
        reason: Box<str>,
    },
    /// Stock on hand as counted, all or none.
    Count(Vec<(Box<str>, u32)>),
    /// Remove these products, all or none. Unknown ones count as removed.
    Remove(Vec<Box<str>>),
    /// Drop ids that were finished before the horizon.
    Forget(Horizon),
    /// Nothing; its answer means that the stock includes everything that was committed before.
    CatchUp,
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Less stock than requested.
    Short(Vec<Shortage>),
    /// The id was used with other content.
    Reused,
    /// The order was shipped or cancelled.
    Finished,
    /// Stock on hand would fall below what is reserved, for these products.
    BelowReserved(Vec<Shortage>),
    /// Stock on hand would exceed the limit, for these products.
    AboveLimit(Vec<Box<str>>),
    /// The bound of a kind would be exceeded.
    Full {
        /// The kind.
        kind: LimitKind,
        /// The bound.
        limit: usize,
    },
    /// These products are on hand or reserved.
    InStock(Vec<Shortage>),
    /// The state has no evidence for the event: it is behind, or the event is from another system.
    Behind,
}

/// A product of which there is less than requested. If stock on hand would fall too low: what is reserved, and what is
/// on hand (or was counted).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// The product.
    pub product: Box<str>,
    /// Units requested, or reserved.
    pub wanted: u32,
    /// Units available, or on hand.
    pub available: u32,
}

impl Command {
    /// Decides: a fact to record, nothing because the state is so already, or a refusal.
    pub fn decide(&self, view: &impl View) -> Result<Option<Fact>, Refusal> {
        match self {
            Command::Reserve { order, items, expires_at } => reserve(view, *order, items, *expires_at),
            Command::Bind(order, event) => bind(view, *order, *event),
            Command::Cancel(order, event) => cancel(view, *order, *event),
            Command::Ship(order, event) => ship(view, *order, *event),
            Command::Expire(order, tombstone) => Ok(expire(view, *order, *tombstone)),
            Command::Drop(order, event) => Ok(drop(view, *order, *event)),
            Command::Disown(order, tombstone) => Ok(disown(view, *order, *tombstone)),
            Command::Adjust { request, lines, reason } => adjust(view, request, lines, reason),
            Command::Count(lines) => count(view, lines),
            Command::Remove(products) => remove(view, products),
            Command::Forget(horizon) => Ok(Some(Fact::Forgot(*horizon))),
            Command::CatchUp => Ok(None),
        }
    }
}

fn reserve(
    view: &impl View,
    order: Uuid,
    items: &[Item],
    expires_at: Option<u64>,
) -> Result<Option<Fact>, Refusal> {
    let fence = match view.reservation(&order) {
        None => 0,
        Some(reservation) => match reservation.phase {
            Phase::Held { .. } | Phase::Bound { .. } if view.holds(&order, items) => return Ok(None),
            Phase::Held { .. } | Phase::Bound { .. } => return Err(Refusal::Reused),
            Phase::Released { by: Release::Tombstone(tombstone) } => tombstone,
            Phase::Released { .. } | Phase::Shipped { .. } => return Err(Refusal::Finished),
        },
    };
    let shortages: Vec<Shortage> = items
        .iter()
        .filter_map(|item| {
            let available = view.level(&item.product).map_or(0, Level::available);
            (available < item.quantity).then(|| Shortage {
                product: item.product.clone(),
                wanted: item.quantity,
                available,
            })
        })
        .collect();
    if !shortages.is_empty() {
        return Err(Refusal::Short(shortages));
    }
    room(view, LimitKind::Reservations, usize::from(view.reservation(&order).is_none()))?;
    let items = items.iter().map(|item| (item.product.clone(), item.quantity)).collect();
    Ok(Some(Fact::Reserved { order, items, expires_at, fence }))
}

fn bind(view: &impl View, order: Uuid, event: u64) -> Result<Option<Fact>, Refusal> {
    match view.reservation(&order).map(|reservation| reservation.phase) {
        Some(Phase::Held { .. }) => Ok(Some(Fact::Bound { order, event })),
        Some(Phase::Bound { .. } | Phase::Shipped { .. }) => Ok(None),
        Some(Phase::Released { by: Release::Cancelled(_) | Release::Duplicate(_) }) => Ok(None),
        Some(Phase::Released { by: Release::Tombstone(_) }) => Err(Refusal::Behind),
        None => forgotten(view, event),
    }
}

fn cancel(view: &impl View, order: Uuid, event: u64) -> Result<Option<Fact>, Refusal> {
    match view.reservation(&order).map(|reservation| reservation.phase) {
        Some(Phase::Held { .. } | Phase::Bound { .. }) => {
            Ok(Some(Fact::Released { order, by: Release::Cancelled(event) }))
        }
        Some(Phase::Released { by: Release::Cancelled(_) }) => Ok(None),
        Some(Phase::Released { .. } | Phase::Shipped { .. }) => Err(Refusal::Behind),
        None => forgotten(view, event),
    }
}

fn ship(view: &impl View, order: Uuid, event: u64) -> Result<Option<Fact>, Refusal> {
    match view.reservation(&order).map(|reservation| reservation.phase) {
        Some(Phase::Held { .. } | Phase::Bound { .. }) => Ok(Some(Fact::Shipped { order, event })),
        Some(Phase::Shipped { .. } | Phase::Released { by: Release::Duplicate(_) }) => Ok(None),
        Some(Phase::Released { .. }) => Err(Refusal::Behind),
        None => forgotten(view, event),
    }
}

/// An event of an unknown id: processed before the id was forgotten, or never seen.
fn forgotten(view: &impl View, event: u64) -> Result<Option<Fact>, Refusal> {
    if event <= view.horizon().floor { Ok(None) } else { Err(Refusal::Behind) }
}

/// Releases only what is merely held, by a reservation older than the tombstone (`>`, not `≥`: docs/protocol.md#c1).
fn expire(view: &impl View, order: Uuid, tombstone: u64) -> Option<Fact> {
    let reservation = view.reservation(&order)?;
    let held = matches!(reservation.phase, Phase::Held { .. });
    (held && tombstone > reservation.fence)
        .then_some(Fact::Released { order, by: Release::Tombstone(tombstone) })
}

fn drop(view: &impl View, order: Uuid, event: u64) -> Option<Fact> {
    let held = matches!(view.reservation(&order)?.phase, Phase::Held { .. });
    held.then_some(Fact::Released { order, by: Release::Duplicate(event) })
}

/// Releases only what is bound, by an event older than the tombstone. No tombstone follows an existing order: one that
/// is newer than the order's event proves that the record, restored from an older backup, has lost the order.
fn disown(view: &impl View, order: Uuid, tombstone: u64) -> Option<Fact> {
    let reservation = view.reservation(&order)?;
    let Phase::Bound { event } = reservation.phase else { return None };
    (tombstone > event.max(reservation.fence))
        .then_some(Fact::Released { order, by: Release::Tombstone(tombstone) })
}

fn adjust(
    view: &impl View,
    request: &str,
    lines: &[(Box<str>, i32)],
    reason: &str,
) -> Result<Option<Fact>, Refusal> {
    let by_its_old_key = || {
        let before = key::before(request).and_then(|before| view.adjusted(before));
        before.filter(|adjusted| !adjusted.known)
    };
    if let Some(before) = view.adjusted(request).or_else(by_its_old_key) {
        let same = fact::fingerprints(lines, reason).contains(&before.fingerprint);
        return if same { Ok(None) } else { Err(Refusal::Reused) };
    }
    let (mut below, mut above) = (Vec::new(), Vec::new());
    for (product, delta) in lines {
        let level = view.level(product).unwrap_or_default();
        let on_hand = i64::from(level.on_hand) + i64::from(*delta);
        if on_hand < i64::from(level.reserved) {
            below.push(Shortage {
                product: product.clone(),
                wanted: level.reserved,
                available: level.on_hand,
            });
        } else if on_hand > i64::from(ON_HAND) {
            above.push(product.clone());
        }
    }
    match (below.is_empty(), above.is_empty()) {
        (false, _) => Err(Refusal::BelowReserved(below)),
        (true, false) => Err(Refusal::AboveLimit(above)),
        (true, true) => {
            room(view, LimitKind::Products, unknown(view, lines.iter().map(|(product, _)| product)))?;
            room(view, LimitKind::Adjustments, 1)?;
            let known = key::is_known(request);
            let (request, reason) = (request.into(), reason.into());
            Ok(Some(Fact::Adjusted { request, lines: lines.to_vec(), reason, known }))
        }
    }
}

fn count(view: &impl View, lines: &[(Box<str>, u32)]) -> Result<Option<Fact>, Refusal> {
    let below: Vec<Shortage> = lines
        .iter()
        .filter_map(|(product, on_hand)| {
            let reserved = view.level(product).unwrap_or_default().reserved;
            (*on_hand < reserved).then(|| Shortage {
                product: product.clone(),
                wanted: reserved,
                available: *on_hand,
            })
        })
        .collect();
    let above: Vec<Box<str>> =
        lines.iter().filter(|(_, on_hand)| *on_hand > ON_HAND).map(|(product, _)| product.clone()).collect();
    match (below.is_empty(), above.is_empty()) {
        (false, _) => Err(Refusal::BelowReserved(below)),
        (true, false) => Err(Refusal::AboveLimit(above)),
        (true, true) => {
            room(view, LimitKind::Products, unknown(view, lines.iter().map(|(product, _)| product)))?;
            Ok(Some(Fact::Counted { lines: lines.to_vec() }))
        }
    }
}

fn remove(view: &impl View, products: &[Box<str>]) -> Result<Option<Fact>, Refusal> {
    let level = |product: &'_ str| view.level(product).map(|level| (Box::from(product), level));
    let known: Vec<(Box<str>, Level)> = products.iter().filter_map(|product| level(product)).collect();
    let in_stock: Vec<Shortage> = known
        .iter()
        .filter(|(_, level)| *level != Level::default())
        .map(|(product, level)| Shortage {
            product: product.clone(),
            wanted: level.reserved,
            available: level.on_hand,
        })
        .collect();
    if !in_stock.is_empty() {
        return Err(Refusal::InStock(in_stock));
    }
    let products: Vec<Box<str>> = known.into_iter().map(|(product, _)| product).collect();
    Ok((!products.is_empty()).then_some(Fact::Removed { products }))
}

/// How many of these products are new.
fn unknown<'a>(view: &impl View, products: impl Iterator<Item = &'a Box<str>>) -> usize {
    products.filter(|product| view.level(product).is_none()).count()
}

/// Whether the bound permits so many more of a kind.
fn room(view: &impl View, kind: LimitKind, more: usize) -> Result<(), Refusal> {
    let limit = view.bounds().of(kind);
    if more > 0 && view.amounts().of(kind).saturating_add(more) > limit {
        return Err(Refusal::Full { kind, limit });
    }
    Ok(())
}
