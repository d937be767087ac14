//! The stock rules alone: random histories of commands never break the invariants.

use contract::Item;
use inventory_worker::stock::{Command, Draft, Entry, Fact, Phase, Release, Stock};
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use crate::harness::seed::properties;

const PRODUCTS: [&str; 3] = ["lamp", "rug", "sofa"];
const ORDERS: u128 = 4;

/// Any command, over few products and orders so that they collide.
fn command() -> impl Strategy<Value = Command> {
    let order = (0..ORDERS).prop_map(Uuid::from_u128);
    let product = proptest::sample::select(&PRODUCTS[..]);
    let items =
        proptest::collection::btree_map(product.clone(), 1_u32..6, 1..=PRODUCTS.len()).prop_map(|items| {
            items
                .into_iter()
                .map(|(product, quantity)| Item { product: product.into(), quantity })
                .collect::<Vec<_>>()
        });
    let line = (product.clone().prop_map(Box::<str>::from), -8_i32..12);
    let counted = (product.prop_map(Box::<str>::from), 0_u32..20);
    let expires_at = proptest::option::of(0_u64..100);
    prop_oneof![
        5 => (order.clone(), items, expires_at)
            .prop_map(|(order, items, expires_at)| Command::Reserve { order, items, expires_at }),
        2 => (order.clone(), 1_u64..50).prop_map(|(order, event)| Command::Bind(order, event)),
        1 => (order.clone(), 1_u64..50).prop_map(|(order, event)| Command::Cancel(order, event)),
        1 => (order.clone(), 1_u64..50).prop_map(|(order, event)| Command::Ship(order, event)),
        1 => (order.clone(), 1_u64..50).prop_map(|(order, tombstone)| Command::Expire(order, tombstone)),
        1 => (order.clone(), 1_u64..50).prop_map(|(order, event)| Command::Drop(order, event)),
        1 => (order, 1_u64..50).prop_map(|(order, tombstone)| Command::Disown(order, tombstone)),
        3 => (0_u32..200, line).prop_map(|(request, line)| Command::Adjust {
            request: request.to_string().into(), lines: vec![line], reason: "".into(),
        }),
        1 => counted.prop_map(|line| Command::Count(vec![line])),
    ]
}

/// Decides batches one after the other and applies their entries, which are the ledger.
fn run(batches: &[Vec<Command>]) -> (Stock, Vec<Entry>) {
    let (mut stock, mut ledger) = (Stock::default(), Vec::new());
    for (at, batch) in batches.iter().enumerate() {
        let mut draft = Draft::over(&stock, at as u64);
        for command in batch {
            let _ = draft.decide(command);
        }
        let facts = draft.facts();
        if facts.is_empty() {
            continue;
        }
        let entry = Entry { worker: Uuid::nil(), batch: at as u64, previous: None, at: at as u64, facts };
        stock.apply(stock.sequence() + 1, &entry).expect("what the rules let through is no contradiction");
        ledger.push(entry);
    }
    (stock, ledger)
}

/// Units of open reservations, by product.
fn promised(stock: &Stock, product: &str) -> u32 {
    (0..ORDERS)
        .flat_map(|order| {
            stock.items(&Uuid::from_u128(order)).map(|(p, q)| (p.to_owned(), q)).collect::<Vec<_>>()
        })
        .filter_map(|(p, quantity)| (p == product).then_some(quantity))
        .sum()
}

proptest! {
    #![proptest_config(properties(512))]

    #[test]
    fn stock_never_falls_below_what_is_reserved(batches in proptest::collection::vec(proptest::collection::vec(command(), 1..8), 1..40)) {
        let (mut stock, ledger) = (Stock::default(), run(&batches).1);
        for (index, entry) in ledger.iter().enumerate() {
            stock.apply(index as u64 + 1, entry).unwrap();
            for product in PRODUCTS {
                let level = stock.level(product).unwrap_or_default();
                prop_assert!(level.reserved <= level.on_hand, "{product}: {level:?}");
                prop_assert_eq!(level.reserved, promised(&stock, product));
            }
        }
    }

    #[test]
    fn restart_from_a_snapshot_equals_replay_from_the_start(
        batches in proptest::collection::vec(proptest::collection::vec(command(), 1..8), 1..40),
        cut in 0.0..1.0_f64,
    ) {
        let (replayed, ledger) = run(&batches);
        let cut = (ledger.len() as f64 * cut) as usize;
        let mut stock = Stock::default();
        for (index, entry) in ledger.iter().enumerate() {
            if index == cut {
                stock = Stock::from_snapshot(&stock.to_snapshot().unwrap()).unwrap();
            }
            // Includes the ledger's encoding.
            let entry: Entry = serde_json::from_slice(&serde_json::to_vec(entry).unwrap()).unwrap();
            stock.apply(index as u64 + 1, &entry).unwrap();
        }
        prop_assert_eq!(&stock, &replayed);
        prop_assert_eq!(&Stock::from_snapshot(&stock.to_snapshot().unwrap()).unwrap(), &replayed);
    }

    #[test]
    fn a_batch_decides_as_its_commands_would_one_by_one(batch in proptest::collection::vec(command(), 1..30)) {
        let together = run(std::slice::from_ref(&batch)).0;
        let (one_by_one, _) = run(&batch.into_iter().map(|command| vec![command]).collect::<Vec<_>>());
        for product in PRODUCTS {
            prop_assert_eq!(together.level(product), one_by_one.level(product));
        }
        for order in (0..ORDERS).map(Uuid::from_u128) {
            let phase = |stock: &Stock| stock.reservation(&order).map(|held| (held.phase, held.fence));
            prop_assert_eq!(phase(&together), phase(&one_by_one));
        }
    }

    #[test]
    fn events_in_any_order_each_twice_lead_to_the_same_end(
        last in 0..3_u8,
        order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let id = Uuid::from_u128(1);
        let story = match last {
            0 => vec![Command::Bind(id, 1)],
            1 => vec![Command::Bind(id, 1), Command::Cancel(id, 2)],
            _ => vec![Command::Bind(id, 1), Command::Ship(id, 2)],
        };
        let mut stock = reserved(id);
        for index in order {
            let Some(command) = story.get(index % 3) else { continue };
            decide(&mut stock, command);
        }
        let level = stock.level("lamp").unwrap();
        let phase = stock.reservation(&id).unwrap().phase;
        match last {
            0 => prop_assert_eq!((phase, level.on_hand, level.reserved), (Phase::Bound { event: 1 }, 5, 2)),
            1 => prop_assert_eq!((phase, level.on_hand, level.reserved),
                (Phase::Released { by: Release::Cancelled(2) }, 5, 0)),
            _ => prop_assert_eq!((phase, level.on_hand, level.reserved), (Phase::Shipped { event: 2 }, 3, 0)),
        }
    }
}

/// Five lamps, two of them reserved for an order.
fn reserved(order: Uuid) -> Stock {
    let mut stock = Stock::default();
    decide(&mut stock, &Command::Count(vec![("lamp".into(), 5)]));
    let items = vec![Item { product: "lamp".into(), quantity: 2 }];
    decide(&mut stock, &Command::Reserve { order, items, expires_at: Some(9) });
    stock
}

/// Decides one command, and applies its facts.
fn decide(stock: &mut Stock, command: &Command) {
    let mut draft = Draft::over(stock, 0);
    draft.decide(command).unwrap();
    let facts = draft.facts();
    if !facts.is_empty() {
        let entry = Entry { worker: Uuid::nil(), batch: 0, previous: None, at: 0, facts };
        stock.apply(stock.sequence() + 1, &entry).unwrap();
    }
}

#[test]
fn a_stale_tombstone_releases_nothing() {
    let id = Uuid::from_u128(1);
    let mut stock = reserved(id);
    decide(&mut stock, &Command::Expire(id, 7));
    decide(
        &mut stock,
        &Command::Reserve {
            order: id,
            items: vec![Item { product: "lamp".into(), quantity: 2 }],
            expires_at: Some(9),
        },
    );
    assert_eq!(stock.reservation(&id).unwrap().fence, 7);
    // The second worker to expire it found the first one's tombstone (docs/protocol.md#c1).
    decide(&mut stock, &Command::Expire(id, 7));
    assert!(matches!(stock.reservation(&id).unwrap().phase, Phase::Held { .. }));
    assert_eq!(stock.level("lamp").unwrap().reserved, 2);
    decide(&mut stock, &Command::Expire(id, 8));
    assert_eq!(stock.level("lamp").unwrap().reserved, 0);
}

#[test]
fn a_damaged_ledger_is_refused() {
    let id = Uuid::from_u128(1);
    let mut stock = reserved(id);
    let entry = |fact| Entry { worker: Uuid::nil(), batch: 0, previous: None, at: 0, facts: vec![fact] };
    let next = stock.sequence() + 1;
    let bound = Fact::Bound { order: Uuid::from_u128(2), event: 1 };
    assert!(stock.clone().apply(next, &entry(bound.clone())).is_err());
    assert!(stock.apply(next + 1, &entry(bound)).unwrap_err().to_string().contains("it follows"));
}

#[test]
fn an_order_is_not_reserved_again_while_it_holds_something() {
    let id = Uuid::from_u128(1);
    let mut stock = reserved(id);
    let items = vec![("lamp".into(), 1)];
    let again = Fact::Reserved { order: id, items, expires_at: None, fence: 0 };
    let entry = Entry { worker: Uuid::nil(), batch: 0, previous: None, at: 0, facts: vec![again] };
    let error = stock.apply(stock.sequence() + 1, &entry).unwrap_err();
    assert!(error.why.contains("already"), "{error}");
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    let whole = reserved(Uuid::from_u128(1)).to_snapshot().unwrap();
    let good: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    type Change = fn(&mut serde_json::Value);
    let changed = |change: Change| {
        let mut snapshot = good.clone();
        change(&mut snapshot);
        Stock::from_snapshot(&serde_json::to_vec(&snapshot).unwrap())
    };
    changed(|_| {}).unwrap();
    let breaks: [(&str, Change); 4] = [
        ("product lamp is a duplicate", |snapshot| {
            snapshot["products"].as_array_mut().unwrap().push(json!(["lamp", 9]))
        }),
        ("00000001 is a duplicate", |snapshot| {
            let twin = snapshot["reservations"][0].clone();
            snapshot["reservations"].as_array_mut().unwrap().push(twin);
        }),
        ("finished", |snapshot| snapshot["reservations"][0][1] = json!({"shipped": {"event": 9}})),
        ("product number 7", |snapshot| snapshot["reservations"][0][4] = json!([[7, 1]])),
    ];
    for (why, change) in breaks {
        let error = changed(change).unwrap_err().to_string();
        assert!(error.contains("contradicts itself") && error.contains(why), "{why}: {error}");
    }
}

#[test]
fn nothing_follows_the_last_number_there_is() {
    let last = br#"{"format":1,"sequence":18446744073709551615,"horizon":{"before":0,"floor":0},"products":[],"reservations":[],"adjustments":[]}"#;
    let mut stock = Stock::from_snapshot(last).unwrap();
    let entry = Entry { worker: Uuid::nil(), batch: 0, previous: None, at: 0, facts: Vec::new() };
    assert!([0, 1, u64::MAX].iter().all(|sequence| stock.apply(*sequence, &entry).is_err()));
}

#[test]
fn an_entry_whose_writer_knew_another_ledger_is_refused() {
    let mut stock = reserved(Uuid::from_u128(1));
    let last = stock.last_entry().unwrap();
    let next = |previous| {
        let facts = vec![Fact::Counted { lines: vec![("rug".into(), 1)] }];
        Entry { worker: Uuid::nil(), batch: 9, previous, at: 0, facts }
    };
    let sequence = stock.sequence() + 1;
    assert!(stock.clone().apply(sequence, &next(Some((Uuid::from_u128(7), 3)))).is_err());
    stock.apply(sequence, &next(Some(last))).unwrap();
}

#[test]
fn bound_stock_is_given_back_only_by_a_tombstone_that_is_newer_than_its_order() {
    let id = Uuid::from_u128(1);
    let left = |commands: &[Command]| {
        let mut stock = reserved(id);
        commands.iter().for_each(|command| decide(&mut stock, command));
        stock.level("lamp").unwrap().reserved
    };
    let bind = Command::Bind(id, 7);
    for (tombstone, expected) in [(6, 2), (7, 2), (8, 0)] {
        assert_eq!(left(&[bind.clone(), Command::Disown(id, tombstone)]), expected, "{tombstone}");
    }
    // Expiry never releases a bound reservation, and a reconcile never one that is only held.
    assert_eq!(left(&[bind, Command::Expire(id, 8)]), 2);
    assert_eq!(left(&[Command::Disown(id, 8)]), 2);
}
