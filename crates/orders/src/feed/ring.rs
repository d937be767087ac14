//! The most recent entries of the record, in memory, for any number of readers: each has its own cursor and none has a
//! queue. Bounded in count and bytes. Pure except for the watch channel of its head: must not depend on a stream.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use contract::orders::v1 as pb;
use order_streams::entry::{EventKind, Mark, body};
use order_streams::order::Order;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use crate::order::damage::Damage;
use crate::order::request::Whose;

/// The most entries that one look scans: some microseconds.
const SCAN: u64 = 1_024;
/// Bytes that an event takes besides itself and its texts, roughly.
const OVERHEAD: usize = 64;
/// The most bytes that a decoded order takes per byte of its payload: the strings of the JSON in allocations of their
/// own, without the field names.
const READ: usize = 3;

/// A change of an order.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) sequence: u64,
    pub(super) mark: Mark,
    payload: Box<[u8]>,
    /// The order after it; decoded once for all watchers, when the first needs it.
    order: OnceLock<Option<pb::Order>>,
}

/// Entries from `start` on, each in its slot. The slot of an entry that is not a change of an order is empty.
#[derive(Debug)]
struct Entries {
    start: u64,
    slots: VecDeque<Option<Arc<Event>>>,
    bytes: usize,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Ring {
    entries: RwLock<Entries>,
    head: watch::Sender<u64>,
    most: usize,
    most_bytes: usize,
}

/// What a reader finds after its cursor.
#[derive(Debug)]
pub(super) enum RingRead {
    /// The next event that it wants.
    Event(Arc<Event>),
    /// Nothing that it wants up to this sequence.
    Nothing(u64),
    /// The ring has moved on: it no longer holds what follows the cursor.
    Gone,
}

impl Event {
    pub(super) fn new(sequence: u64, mark: Mark, payload: &[u8]) -> Event {
        // A copy, as the original keeps the whole receive buffer alive.
        Event { sequence, mark, payload: payload.into(), order: OnceLock::new() }
    }

    /// The order after it; none if the payload is not an order, which is counted once.
    pub(super) fn order(&self, damage: &Damage) -> Option<&pb::Order> {
        let read = || match body(self.mark.id, &self.payload) {
            Ok(body) => Some((&Order { body, first: self.mark.first, last: self.sequence }).into()),
            Err(error) => {
                damage.note(self.sequence, &error);
                None
            }
        };
        self.order.get_or_init(read).as_ref()
    }

    pub(super) fn kind(&self) -> pb::OrderEvent {
        match self.mark.kind {
            EventKind::Created => pb::OrderEvent::Created,
            EventKind::Updated => pb::OrderEvent::StatusUpdated,
        }
    }

    pub(super) fn is_of(&self, whose: &Whose) -> bool {
        match whose {
            Whose::All => true,
            Whose::Order(id) => self.mark.id == *id,
            Whose::Customer(customer) => self.mark.customer == *customer,
        }
    }

    fn bytes(&self) -> usize {
        // The decoded order is counted from the beginning, as nothing is counted again when it is decoded.
        OVERHEAD + size_of::<Event>() + self.mark.customer.len() + (1 + READ) * self.payload.len()
    }
}

impl Ring {
    /// An empty ring: its first entry will have the sequence after `last`.
    pub(super) fn after(last: u64, most: usize, most_bytes: usize) -> Ring {
        let entries = Entries { start: last + 1, slots: VecDeque::new(), bytes: 0 };
        Ring { entries: RwLock::new(entries), head: watch::Sender::new(last), most: most.max(1), most_bytes }
    }

    /// Watches the last sequence in the ring.
    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Adds the next entries, and wakes the readers once.
    pub(super) fn push(&self, events: impl IntoIterator<Item = Option<Event>>) {
        // Allocated before and freed after the lock is held, which blocks the readers of all threads.
        let events: Vec<_> = events.into_iter().map(|event| event.map(Arc::new)).collect();
        let mut old = Vec::new();
        let mut entries = self.entries.write();
        for event in events {
            entries.bytes += event.as_ref().map_or(0, |event| event.bytes());
            entries.slots.push_back(event);
            // The newest stays, whatever its size.
            while entries.slots.len() > self.most
                || (entries.bytes > self.most_bytes && entries.slots.len() > 1)
            {
                let oldest = entries.slots.pop_front().flatten();
                entries.bytes -= oldest.as_ref().map_or(0, |event| event.bytes());
                old.push(oldest);
                entries.start += 1;
            }
        }
        let head = entries.end() - 1;
        drop(entries);
        self.head.send_replace(head);
    }

    /// Whether a reader that has seen all up to this sequence can continue here without a gap.
    pub(super) fn follows(&self, cursor: u64) -> bool {
        cursor + 1 >= self.entries().start
    }

    /// The first event of these orders after a cursor.
    pub(super) fn find(&self, cursor: u64, whose: &Whose) -> RingRead {
        let entries = self.entries();
        let Some(places) = entries.behind(cursor, SCAN) else { return RingRead::Gone };
        let upto = places.end;
        match entries.slots.range(places.start..upto).flatten().find(|event| event.is_of(whose)) {
            Some(event) => RingRead::Event(Arc::clone(event)),
            None => RingRead::Nothing(cursor.max(entries.start + upto as u64 - 1)),
        }
    }

    /// All entries after a cursor, at most `most`; `None` if they are gone.
    pub(super) fn behind(&self, cursor: u64, most: u64) -> Option<Vec<Option<Arc<Event>>>> {
        let entries = self.entries();
        let places = entries.behind(cursor, most)?;
        Some(entries.slots.range(places).cloned().collect())
    }

    fn entries(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read()
    }
}

impl Entries {
    /// The sequence after the last.
    fn end(&self) -> u64 {
        self.start + self.slots.len() as u64
    }

    /// The slots after a cursor, at most `most`; `None` if some of them are gone.
    fn behind(&self, cursor: u64, most: u64) -> Option<std::ops::Range<usize>> {
        let offset = (cursor + 1).checked_sub(self.start)?;
        let first = usize::try_from(offset).map_or(self.slots.len(), |offset| offset.min(self.slots.len()));
        let last =
            usize::try_from(most).map_or(self.slots.len(), |most| (first + most).min(self.slots.len()));
        Some(first..last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use contract::Item;

    use super::*;
    use crate::order::request::NewOrder;
    use order_streams::order::Moment;
    use order_streams::status::Status;

    fn event(sequence: u64, customer: u8) -> Event {
        let mark = Mark {
            kind: EventKind::Created,
            id: Uuid::from_u128(sequence.into()),
            customer: format!("c{customer}").into(),
            status: Status::Pending,
            first: sequence,
        };
        Event::new(sequence, mark, b"{}")
    }

    /// What happens next: entries come (255 is none of ours), or a reader looks once.
    #[derive(Debug, Clone)]
    enum Act {
        Push(Vec<u8>),
        Look(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        let customer = prop_oneof![4 => 0..3_u8, 1 => Just(255)];
        prop_oneof![
            2 => proptest::collection::vec(customer, 1..6).prop_map(Act::Push),
            5 => (0..4_usize).prop_map(Act::Look),
        ]
    }

    /// A reader with its filter, its cursor, and the events it got.
    struct Reader {
        whose: Whose,
        cursor: u64,
        got: Vec<u64>,
        gone: bool,
    }

    impl Reader {
        fn look(&mut self, ring: &Ring) {
            match ring.find(self.cursor, &self.whose) {
                RingRead::Event(event) => {
                    self.cursor = event.sequence;
                    self.got.push(event.sequence);
                }
                RingRead::Nothing(upto) => self.cursor = upto,
                RingRead::Gone => self.gone = true,
            }
        }
    }

    proptest! {
        #[test]
        fn every_reader_gets_each_of_its_events_once_or_is_told_that_it_cannot(
            acts in proptest::collection::vec(act(), 0..80),
            begin in 0..5_u64,
            most in 1..12_usize,
        ) {
            let ring = Ring::after(begin, most, usize::MAX);
            let whose = [Whose::All, Whose::Customer("c0".into()), Whose::Customer("c9".into()), Whose::Order(Uuid::from_u128(7))];
            let mut readers =
                whose.map(|whose| Reader { whose, cursor: begin, got: Vec::new(), gone: false });
            let mut pushed = Vec::new();
            for act in acts {
                match act {
                    Act::Push(customers) => {
                        let first = begin + 1 + pushed.len() as u64;
                        let entries = (first..).zip(&customers);
                        ring.push(entries.map(|(sequence, customer)| (*customer != 255).then(|| event(sequence, *customer))));
                        pushed.extend(customers);
                    }
                    Act::Look(reader) => readers[reader].look(&ring),
                }
            }
            for mut reader in readers {
                // To the end, unless it was overtaken.
                while !reader.gone && reader.cursor < begin + pushed.len() as u64 {
                    reader.look(&ring);
                }
                let all = (begin + 1..).zip(&pushed).filter(|(_, customer)| **customer != 255);
                let wanted: Vec<u64> = all
                    .filter(|(sequence, customer)| event(*sequence, **customer).is_of(&reader.whose))
                    .map(|(sequence, _)| sequence)
                    .filter(|sequence| *sequence <= reader.cursor)
                    .collect();
                prop_assert_eq!(reader.got, wanted);
                prop_assert!(!reader.gone || !ring.follows(reader.cursor));
            }
        }
    }

    #[test]
    fn it_is_bounded_in_count_and_bytes() {
        let ring = Ring::after(0, 10, usize::MAX);
        ring.push((1..=100).map(|sequence| Some(event(sequence, 0))));
        assert!(ring.follows(90) && !ring.follows(89));
        let size = event(1, 0).bytes();
        let ring = Ring::after(0, 1_000, 3 * size);
        ring.push((1..=100).map(|sequence| Some(event(sequence, 0))));
        assert!(ring.follows(97) && !ring.follows(96));
        let tiny = Ring::after(0, 1_000, 1);
        tiny.push((1..=3).map(|sequence| Some(event(sequence, 0))));
        assert!(tiny.follows(2) && !tiny.follows(1));
    }

    #[test]
    fn readers_go_on_while_entries_are_made() {
        let ring = Ring::after(0, 10, usize::MAX);
        ring.push((1..=20).map(|sequence| {
            assert!(ring.entries.try_read().is_some());
            Some(event(sequence, 0))
        }));
        assert_eq!(*ring.head().borrow(), 20);
    }

    #[test]
    fn the_bytes_of_an_event_include_its_order_once_read() {
        for items in [1_u32, 500] {
            let item = |number| Item { product: format!("product-{number:03}").into(), quantity: 1_000 };
            let placed = NewOrder {
                id: Uuid::from_u128(1),
                request_id: "r".into(),
                made: true,
                customer: "Ann".into(),
                items: (0..items).map(item).collect(),
            };
            let body = placed.placed(Moment::now());
            let payload = serde_json::to_vec(&body.to_pb()).unwrap();
            let read = Event::new(1, event(1, 0).mark, &payload);
            let order = read.order(&Damage::default()).unwrap();
            let texts = [&order.order_id, &order.customer_id, &order.status_reason, &order.etag];
            let heap: usize = texts.iter().map(|text| text.capacity()).sum::<usize>()
                + order.items.capacity() * size_of_val(&order.items[0])
                + order.items.iter().map(|item| item.product_id.capacity()).sum::<usize>();
            let whole = size_of::<Event>() + payload.len() + heap;
            assert!((whole..4 * whole).contains(&read.bytes()), "{} for {whole}", read.bytes());
        }
    }

    #[test]
    fn an_empty_ring_knows_where_it_begins() {
        let ring = Ring::after(41, 10, 1_000);
        assert!(matches!(ring.find(41, &Whose::All), RingRead::Nothing(41)));
        assert!(matches!(ring.find(40, &Whose::All), RingRead::Gone));
        // A cursor ahead waits for the ring to come, and gets nothing twice.
        assert!(matches!(ring.find(43, &Whose::All), RingRead::Nothing(43)));
        ring.push((42..=44).map(|sequence| Some(event(sequence, 0))));
        assert!(matches!(ring.find(43, &Whose::All), RingRead::Event(event) if event.sequence == 44));
        assert_eq!(*ring.head().borrow(), 44);
    }
}
