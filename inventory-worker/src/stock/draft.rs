//! A draft: the stock as it would be after facts that are not committed yet. It is an overlay and does not change the
//! stock, so that no reader sees what may still be refused.

use std::collections::HashMap;

use contract::Item;
use contract::item::same;
use foldhash::fast::RandomState;
use uuid::Uuid;

use super::reservation::{Phase, Reservation};
use super::rules::{Command, Refusal, View};
use super::{Adjusted, Amounts, Fact, Horizon, Level, Stock, fact};

/// The stock and the changes of one batch.
pub struct Draft<'a> {
    stock: &'a Stock,
    /// `None`: removed.
    levels: HashMap<Box<str>, Option<Level>, RandomState>,
    reservations: HashMap<Uuid, Drafted, RandomState>,
    adjustments: HashMap<Box<str>, Adjusted>,
    horizon: Option<Horizon>,
    facts: Vec<Fact>,
    now: u64,
    bounds: Amounts,
    amounts: Amounts,
}

struct Drafted {
    reservation: Reservation,
    items: Vec<(Box<str>, u32)>,
}

impl<'a> Draft<'a> {
    /// A draft without changes; `now` (Unix ms) is the time of its facts.
    pub fn over(stock: &'a Stock, now: u64) -> Draft<'a> {
        Draft {
            stock,
            levels: HashMap::default(),
            reservations: HashMap::default(),
            adjustments: HashMap::new(),
            horizon: None,
            facts: Vec::new(),
            now,
            bounds: Amounts::ANY,
            amounts: stock.amounts(),
        }
    }

    /// The same, in which no command exceeds these bounds.
    #[must_use]
    pub fn within(self, bounds: Amounts) -> Draft<'a> {
        Draft { bounds, ..self }
    }

    /// Decides a command after the commands before it, and keeps its fact. Returns whether there was one.
    pub fn decide(&mut self, command: &Command) -> Result<bool, Refusal> {
        let Some(fact) = command.decide(self)? else { return Ok(false) };
        self.take(&fact);
        self.facts.push(fact);
        Ok(true)
    }

    /// The facts, in the order of their commands.
    pub fn facts(self) -> Vec<Fact> {
        self.facts
    }

    fn take(&mut self, fact: &Fact) {
        match fact {
            Fact::Reserved { order, items, expires_at, fence } => {
                for (product, quantity) in items {
                    self.change(product, |level| level.reserved = level.reserved.saturating_add(*quantity));
                }
                self.amounts.reservations += usize::from(View::reservation(self, order).is_none());
                let phase = Phase::Held { expires_at: *expires_at };
                let reservation =
                    Reservation { items: Box::default(), phase, fence: *fence, changed: self.now };
                self.reservations.insert(*order, Drafted { reservation, items: items.clone() });
            }
            Fact::Bound { order, event } => self.turn(*order, Phase::Bound { event: *event }),
            Fact::Released { order, by } => self.turn(*order, Phase::Released { by: *by }),
            Fact::Shipped { order, event } => self.turn(*order, Phase::Shipped { event: *event }),
            Fact::Adjusted { request, lines, reason, known } => {
                for (product, delta) in lines {
                    self.change(product, |level| level.on_hand = level.on_hand.saturating_add_signed(*delta));
                }
                let fingerprint = fact::fingerprint(lines, reason);
                let adjusted = Adjusted { fingerprint, at: self.now, known: *known };
                self.amounts.adjustments += usize::from(View::adjusted(self, request).is_none());
                self.adjustments.insert(request.clone(), adjusted);
            }
            Fact::Counted { lines } => {
                for (product, on_hand) in lines {
                    self.change(product, |level| level.on_hand = *on_hand);
                }
            }
            Fact::Removed { products } => {
                self.amounts.products = self.amounts.products.saturating_sub(products.len());
                self.levels.extend(products.iter().map(|product| (product.clone(), None)));
            }
            // Forgotten ids stay visible for the rest of the batch: more evidence, never less.
            Fact::Forgot(horizon) => self.horizon = Some(self.stock.horizon.later(*horizon)),
        }
    }

    fn change(&mut self, product: &str, change: impl FnOnce(&mut Level)) {
        let before = View::level(self, product);
        self.amounts.products += usize::from(before.is_none());
        let mut level = before.unwrap_or_default();
        change(&mut level);
        self.levels.insert(product.into(), Some(level));
    }

    fn turn(&mut self, order: Uuid, phase: Phase) {
        let Some(reservation) = View::reservation(self, &order) else { return };
        let reservation =
            Reservation { items: Box::default(), phase, fence: reservation.fence, changed: self.now };
        let mut items = self.items(&order);
        if reservation.finished() {
            let shipped = matches!(phase, Phase::Shipped { .. });
            for (product, quantity) in std::mem::take(&mut items) {
                self.change(&product, |level| {
                    level.reserved = level.reserved.saturating_sub(quantity);
                    level.on_hand = level.on_hand.saturating_sub(if shipped { quantity } else { 0 });
                });
            }
        }
        self.reservations.insert(order, Drafted { reservation, items });
    }

    fn items(&self, order: &Uuid) -> Vec<(Box<str>, u32)> {
        match self.reservations.get(order) {
            Some(drafted) => drafted.items.clone(),
            None => self.stock.items(order).map(|(product, quantity)| (product.into(), quantity)).collect(),
        }
    }
}

impl View for Draft<'_> {
    fn level(&self, product: &str) -> Option<Level> {
        self.levels.get(product).copied().unwrap_or_else(|| self.stock.level(product))
    }

    fn reservation(&self, order: &Uuid) -> Option<&Reservation> {
        let drafted = self.reservations.get(order).map(|drafted| &drafted.reservation);
        drafted.or_else(|| self.stock.reservation(order))
    }

    fn holds(&self, order: &Uuid, items: &[Item]) -> bool {
        let wanted = items.iter().map(Item::line);
        match self.reservations.get(order) {
            Some(drafted) => {
                let held = drafted.items.iter().map(|(product, quantity)| (&**product, *quantity));
                same(held, wanted)
            }
            None => same(self.stock.items(order), wanted),
        }
    }

    fn adjusted(&self, request: &str) -> Option<Adjusted> {
        self.adjustments.get(request).copied().or_else(|| self.stock.adjusted(request))
    }

    fn bounds(&self) -> Amounts {
        self.bounds
    }

    fn amounts(&self) -> Amounts {
        self.amounts
    }

    fn horizon(&self) -> Horizon {
        self.horizon.unwrap_or(self.stock.horizon)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bounds::LimitKind;
    use super::*;

    fn adjust(request: &str, product: &str, delta: i32) -> Command {
        Command::Adjust { request: request.into(), lines: vec![(product.into(), delta)], reason: "".into() }
    }

    #[test]
    fn commands_of_one_batch_cannot_pass_a_bound_together_and_a_removal_among_them_makes_room() {
        let (stock, bounds) = (Stock::default(), Amounts { products: 1, adjustments: 4, reservations: 1 });
        let mut draft = Draft::over(&stock, 1).within(bounds);
        let full = |kind| Err(Refusal::Full { kind, limit: bounds.of(kind) });
        assert_eq!(draft.decide(&adjust("1", "lamp", 1)), Ok(true));
        assert_eq!(draft.decide(&adjust("2", "rug", 1)), full(LimitKind::Products));
        assert_eq!(draft.decide(&adjust("3", "lamp", -1)), Ok(true));
        assert_eq!(draft.decide(&Command::Remove(vec!["lamp".into()])), Ok(true));
        assert_eq!(draft.decide(&adjust("4", "rug", 2)), Ok(true));
        let items = || vec![Item { product: "rug".into(), quantity: 1 }];
        let reserve =
            |order| Command::Reserve { order: Uuid::from_u128(order), items: items(), expires_at: None };
        assert_eq!(draft.decide(&reserve(1)), Ok(true));
        assert_eq!(draft.decide(&reserve(2)), full(LimitKind::Reservations));
        assert_eq!(draft.decide(&reserve(1)), Ok(false), "a repeat is no more");
        assert_eq!(draft.decide(&adjust("5", "rug", 1)), Ok(true));
        assert_eq!(draft.decide(&adjust("6", "rug", 1)), full(LimitKind::Adjustments));
        let facts = draft.facts();
        let entry = super::super::Entry { worker: Uuid::nil(), batch: 1, previous: None, at: 1, facts };
        let mut after = Stock::default();
        after.apply(1, &entry).unwrap();
        assert_eq!(after.amounts(), Amounts { products: 1, adjustments: 4, reservations: 1 });
    }
}
