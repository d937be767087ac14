//! The index of all orders, newest first: customer, status and last event. Built from the record in sequence, and
//! complete up to `applied`. Pure: must not depend on a stream or a clock.
//!
//! 24 bytes per order, and 20 to 60 per customer, as the table of customers doubles when it is full: the orders of a
//! customer are chained through the slots.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use order_streams::entry::{EventKind, Mark};
use order_streams::status::Status;

use super::slots::{Slot, Slots};

/// The most slots that are scanned for one page: some milliseconds. A page that ends there may be short or empty, and
/// still has a next page.
const SCAN: usize = 200_000;
/// No slot.
const END: u32 = u32::MAX;

/// All orders.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Slots,
    /// The newest order by customer. The key is a hash, so a chain could mix two customers; the reader of the orders
    /// checks their customer.
    newest: HashMap<u64, u32>,
    hasher: RandomState,
    applied: u64,
}

/// An entry that does not follow the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MissingEntry;

/// Which orders a list includes.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a> {
    /// Only this customer's orders.
    pub customer: Option<&'a str>,
    /// Only orders with one of these statuses; empty: any.
    pub statuses: &'a [Status],
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// First and last sequence of each order, newest order first.
    pub orders: Vec<(u64, u64)>,
    /// The position to continue from, if there may be more.
    pub next: Option<u64>,
}

impl Index {
    /// An empty index of a record that begins after this sequence.
    pub(super) fn after(sequence: u64) -> Index {
        Index { applied: sequence, ..Index::default() }
    }

    /// The last sequence that it includes.
    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    /// How many orders it has.
    pub(super) fn orders(&self) -> usize {
        self.slots.len()
    }

    /// Applies the next entry; `None` if it is not a change of an order.
    pub(super) fn apply(&mut self, sequence: u64, mark: Option<&Mark>) -> Result<(), MissingEntry> {
        if sequence != self.applied + 1 {
            return Err(MissingEntry);
        }
        self.applied = sequence;
        let Some(mark) = mark else { return Ok(()) };
        match mark.kind {
            EventKind::Created => {
                let place = u32::try_from(self.slots.len()).unwrap_or(END);
                let older = self.newest.insert(self.hasher.hash_one(&*mark.customer), place).unwrap_or(END);
                self.slots.push(Slot { created: sequence, last: sequence, older, status: mark.status });
            }
            EventKind::Updated => match self.slots.created_mut(mark.first) {
                Some(slot) => (slot.last, slot.status) = (sequence, mark.status),
                None => tracing::error!(sequence, order = %mark.id, "a change of an unknown order"),
            },
        }
        Ok(())
    }

    /// A page of at most `size` orders, of those created before a position.
    pub(super) fn page(&self, filter: &Filter<'_>, before: Option<u64>, size: usize) -> Page {
        let mut page = Page { orders: Vec::with_capacity(size.min(64)), next: None };
        let mut position = before;
        for (looked, slot) in self.walk(filter.customer, before).enumerate() {
            let wanted = filter.statuses.is_empty() || filter.statuses.contains(&slot.status);
            if looked == SCAN || (wanted && page.orders.len() == size) {
                page.next = position;
                break;
            }
            position = Some(slot.created);
            if wanted {
                page.orders.push((slot.created, slot.last));
            }
        }
        page
    }

    /// The slots of a customer, or all, from newest to oldest.
    fn walk(&self, customer: Option<&str>, before: Option<u64>) -> impl Iterator<Item = &Slot> {
        let begin = match (customer, before) {
            (Some(customer), None) => self.newest(customer),
            (Some(customer), Some(before)) => self.behind(customer, before),
            (None, None) => below(self.slots.len()),
            (None, Some(before)) => below(self.slots.before(before)),
        };
        let chained = customer.is_some();
        let mut place = begin;
        std::iter::from_fn(move || {
            let slot = self.slot(place)?;
            place = if chained { slot.older } else { place.checked_sub(1).unwrap_or(END) };
            Some(slot)
        })
    }

    fn slot(&self, place: u32) -> Option<&Slot> {
        self.slots.get(usize::try_from(place).ok()?)
    }

    fn newest(&self, customer: &str) -> u32 {
        self.newest.get(&self.hasher.hash_one(customer)).copied().unwrap_or(END)
    }

    /// The customer's next older order after a position, which is an order of the same customer.
    fn behind(&self, customer: &str, position: u64) -> u32 {
        if let Some(slot) = self.slots.created(position) {
            return slot.older;
        }
        // The record has lost that order since the token was made: walk the chain.
        let mut place = self.newest(customer);
        while let Some(slot) = self.slot(place).filter(|slot| slot.created > position) {
            place = slot.older;
        }
        place
    }
}

fn below(place: usize) -> u32 {
    place.checked_sub(1).and_then(|place| u32::try_from(place).ok()).unwrap_or(END)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// What happens next: a new order of a customer, a new status of an order, or something else.
    #[derive(Debug, Clone)]
    enum Act {
        Place(u8),
        Move(usize, Status),
        Other,
    }

    /// An order as the naive model has it.
    #[derive(Debug, Clone)]
    struct Simple {
        customer: String,
        created: u64,
        last: u64,
        status: Status,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => (0..5_u8).prop_map(Act::Place),
            4 => (any::<usize>(), 0..6_usize).prop_map(|(order, status)| Act::Move(order, Status::ALL[status])),
            1 => Just(Act::Other),
        ]
    }

    fn mark(kind: EventKind, order: &Simple) -> Mark {
        Mark {
            kind,
            id: Uuid::nil(),
            customer: order.customer.as_str().into(),
            status: order.status,
            first: order.created,
        }
    }

    fn play(acts: &[Act]) -> (Index, Vec<Simple>) {
        let (mut index, mut model) = (Index::after(0), Vec::<Simple>::new());
        for (sequence, act) in (1..).zip(acts) {
            let mark = match act {
                Act::Place(customer) => {
                    let customer = format!("c{customer}");
                    let status = Status::Pending;
                    model.push(Simple { customer, created: sequence, last: sequence, status });
                    model.last().map(|order| mark(EventKind::Created, order))
                }
                Act::Move(order, status) if !model.is_empty() => {
                    let order = order % model.len();
                    (model[order].last, model[order].status) = (sequence, *status);
                    Some(mark(EventKind::Updated, &model[order]))
                }
                Act::Move(..) | Act::Other => None,
            };
            index.apply(sequence, mark.as_ref()).unwrap();
        }
        (index, model)
    }

    fn expected(model: &[Simple], filter: &Filter<'_>) -> Vec<(u64, u64)> {
        let ours = |order: &&Simple| filter.customer.is_none_or(|customer| customer == order.customer);
        let wanted = |order: &&Simple| filter.statuses.is_empty() || filter.statuses.contains(&order.status);
        model.iter().rev().filter(ours).filter(wanted).map(|order| (order.created, order.last)).collect()
    }

    proptest! {
        #[test]
        fn pages_of_any_list_are_those_of_a_naive_model(
            acts in proptest::collection::vec(act(), 0..120),
            customer in proptest::option::of(0..6_u8),
            statuses in proptest::sample::subsequence(Status::ALL.to_vec(), 0..4),
            size in 1..8_usize,
        ) {
            let (index, model) = play(&acts);
            let customer = customer.map(|customer| format!("c{customer}"));
            let filter = Filter { customer: customer.as_deref(), statuses: &statuses };
            let (mut listed, mut before) = (Vec::new(), None);
            loop {
                let page = index.page(&filter, before, size);
                prop_assert!(page.orders.len() <= size);
                prop_assert!(page.next.is_none() || page.orders.len() == size);
                listed.extend(page.orders);
                before = page.next;
                if before.is_none() { break }
            }
            prop_assert_eq!(listed, expected(&model, &filter));
        }

        #[test]
        fn pages_do_not_move_when_orders_come(
            acts in proptest::collection::vec(act(), 1..60),
            later in proptest::collection::vec((0..5_u8).prop_map(Act::Place), 0..20),
            size in 1..5_usize,
        ) {
            let filter = Filter { customer: Some("c1"), statuses: &[] };
            let (index, _) = play(&acts);
            let first = index.page(&filter, None, size);
            prop_assume!(first.next.is_some());
            let (grown, _) = play(&[acts, later].concat());
            prop_assert_eq!(grown.page(&filter, first.next, size), index.page(&filter, first.next, size));
        }
    }

    #[test]
    fn a_hole_is_refused() {
        let mut index = Index::after(7);
        assert_eq!(index.apply(9, None), Err(MissingEntry));
        assert_eq!(index.apply(7, None), Err(MissingEntry));
        assert_eq!(index.apply(8, None), Ok(()));
        assert_eq!(index.applied(), 8);
    }

    #[test]
    fn a_page_goes_on_from_an_order_that_the_record_has_lost_since() {
        let (index, _) = play(&[Act::Place(1), Act::Place(2), Act::Other, Act::Place(1)]);
        for customer in [None, Some("c1")] {
            let filter = Filter { customer, statuses: &[] };
            assert_eq!(
                index.page(&filter, Some(3), 1).orders[..],
                [(2, 2), (1, 1)][usize::from(customer.is_some())..][..1]
            );
        }
    }

    #[test]
    fn a_slot_takes_24_bytes() {
        assert_eq!(size_of::<Slot>(), 24);
    }

    #[test]
    fn a_page_that_looked_at_too_many_orders_goes_on_later() {
        let acts = vec![Act::Place(1); SCAN + 10];
        let (mut index, _) = play(&acts);
        index.slots.created_mut(4).unwrap().status = Status::Shipped;
        for customer in [None, Some("c1")] {
            let filter = Filter { customer, statuses: &[Status::Shipped] };
            let short = index.page(&filter, None, 5);
            assert!(short.orders.is_empty() && short.next.is_some());
            let rest = index.page(&filter, short.next, 5);
            assert_eq!((rest.orders.len(), rest.next), (1, None));
        }
    }
}
