//! Order events processed by workers that lag: in any order, each event twice, each worker some entries behind. The
//! rules and the barrier together lead to one final state.

use std::collections::VecDeque;

use contract::Item;
use inventory_worker::stock::{Command, Draft, Entry, Level, Refusal, Stock};
use proptest::prelude::*;
use uuid::Uuid;

use crate::harness::seed::properties;

const ORDERS: u128 = 4;

/// The ledger, and workers that have read some of it.
struct Workers {
    ledger: Vec<Entry>,
    workers: [Stock; 2],
}

/// The result of an event.
#[derive(Debug, PartialEq)]
enum Ack {
    Done,
    Later,
}

impl Workers {
    /// A ledger with five units reserved for each order, which worker 1 has not read.
    fn new() -> Workers {
        let mut both = Workers { ledger: Vec::new(), workers: [Stock::default(), Stock::default()] };
        both.work(0, &Command::Count(vec![("lamp".into(), 100)]));
        for order in (0..ORDERS).map(Uuid::from_u128) {
            let items = vec![Item { product: "lamp".into(), quantity: 5 }];
            both.work(0, &Command::Reserve { order, items, expires_at: Some(1) });
        }
        both
    }

    /// Reads up to this many of the next entries.
    fn read(&mut self, worker: usize, entries: usize) {
        let stock = &mut self.workers[worker];
        for _ in 0..entries {
            let Some(entry) = self.ledger.get(stock.sequence() as usize) else { return };
            stock.apply(stock.sequence() + 1, entry).unwrap();
        }
    }

    /// Works as the ledger's writer does: decides, then appends or confirms at the last sequence. If that has changed,
    /// catches up and decides again.
    fn work(&mut self, worker: usize, command: &Command) -> Ack {
        loop {
            let stock = &self.workers[worker];
            let mut draft = Draft::over(stock, 0);
            let decided = draft.decide(command);
            if stock.sequence() as usize != self.ledger.len() {
                self.read(worker, usize::MAX);
                continue;
            }
            let facts = draft.facts();
            if !facts.is_empty() {
                self.ledger.push(Entry { worker: Uuid::nil(), batch: 0, previous: None, at: 0, facts });
                self.read(worker, 1);
            }
            return match decided {
                Err(Refusal::Behind) => Ack::Later,
                Ok(_) => Ack::Done,
                Err(other) => panic!("{other:?}"),
            };
        }
    }
}

/// The events of an order, by its number: placed, then nothing, cancelled or shipped.
fn story(order: u128) -> Vec<Command> {
    let (id, event) = (Uuid::from_u128(order), 10 * order as u64);
    let mut story = vec![Command::Bind(id, event + 1)];
    match order % 3 {
        0 => {}
        1 => story.push(Command::Cancel(id, event + 2)),
        _ => story.push(Command::Ship(id, event + 2)),
    }
    story
}

/// Each event twice, in any order, to any worker, which may read some entries before.
fn deliveries() -> impl Strategy<Value = Vec<(Command, usize, usize)>> {
    let events: Vec<Command> = (0..ORDERS).flat_map(story).flat_map(|event| [event.clone(), event]).collect();
    let count = events.len();
    let lag = proptest::collection::vec((0..2_usize, 0..3_usize), count);
    (Just(events).prop_shuffle(), lag).prop_map(|(events, lag)| {
        events.into_iter().zip(lag).map(|(event, (w, read))| (event, w, read)).collect()
    })
}

proptest! {
    #![proptest_config(properties(512))]

    #[test]
    fn events_twice_in_any_order_to_workers_that_lag_lead_to_one_end(deliveries in deliveries()) {
        let mut both = Workers::new();
        let mut queue: VecDeque<_> = deliveries.into();
        let mut left = 20 * queue.len();
        while let Some((event, worker, read)) = queue.pop_front() {
            prop_assert!(left > 0, "an event is never acknowledged");
            left -= 1;
            both.read(worker, read);
            if both.work(worker, &event) == Ack::Later {
                queue.push_back((event, worker, read));
            }
        }
        both.read(0, usize::MAX);
        both.read(1, usize::MAX);
        // Orders 0 and 3 hold their stock, 1 is cancelled, 2 is shipped.
        prop_assert_eq!(both.workers[0].level("lamp"), Some(Level { on_hand: 95, reserved: 10 }));
        prop_assert_eq!(&both.workers[0], &both.workers[1]);
        prop_assert_eq!(both.ledger.len(), 5 + 4 + 2 - shortcuts(&both));
    }
}

/// Orders that were cancelled or shipped before their placing was processed: these have one entry, not two.
fn shortcuts(both: &Workers) -> usize {
    let bound = |id: Uuid| {
        let is_bound = |entry: &&Entry| {
            entry
                .facts
                .iter()
                .any(|f| matches!(f, inventory_worker::stock::Fact::Bound { order, .. } if *order == id))
        };
        both.ledger.iter().find(is_bound).is_some()
    };
    [1, 2].into_iter().filter(|order| !bound(Uuid::from_u128(*order))).count()
}
