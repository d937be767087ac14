//! The invariants of every state, and the checker's view of the model. Must not change a rule.

use stateright::{Model, Property};

use crate::action::Move;
use crate::moves;
use crate::options::Options;
use crate::rules::level;
use crate::world::{Entry, Hold, Late, Order, Slot, Step, World};

impl Model for Options {
    type State = World;
    type Action = Move;

    fn init_states(&self) -> Vec<World> {
        let slot = |&(order, content): &(usize, u8)| Slot { order, content, step: Step::Idle };
        let orders = vec![Order::new(); self.orders()];
        vec![World { orders, slots: self.slots.iter().map(slot).collect(), wrong: None }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Move>) {
        moves::moves(self, world, actions);
    }

    fn next_state(&self, world: &World, action: Move) -> Option<World> {
        moves::after(self, world, action)
    }

    fn properties(&self) -> Vec<Property<Options>> {
        vec![
            Property::always("0 <= reserved <= on hand", |options: &Options, world: &World| {
                let level = level(world, options.stock);
                let shipped: u32 = world.orders.iter().map(|order| u32::from(order.shipped)).sum();
                level.reserved <= level.on_hand && shipped <= u32::from(options.stock)
            }),
            Property::always("a living order holds its stock", |_: &Options, world: &World| {
                world.orders.iter().all(holds)
            }),
            Property::always("units leave once", |_: &Options, world: &World| {
                world.orders.iter().all(|order| order.shipped <= 1)
            }),
            Property::always("what was shipped is held or has left", |_: &Options, world: &World| {
                world.orders.iter().all(|order| order.register.last() != Some(&Entry::Shipped) || left(order))
            }),
            Property::always("a call is not refused its own order", |_: &Options, world: &World| {
                world.wrong.is_none()
            }),
            Property::always("at rest, orders alone hold stock", |options: &Options, world: &World| {
                world.orders.iter().all(|order| rests(options, world, order))
            }),
            Property::sometimes("an order is recorded", |_: &Options, world: &World| {
                world.orders.iter().any(Order::lives)
            }),
            Property::sometimes("a tombstone wins", |_: &Options, world: &World| {
                world.orders.iter().any(|order| matches!(order.hold, Hold::Buried(_)))
            }),
            Property::sometimes("an order is recorded behind a tombstone", |_: &Options, world: &World| {
                let behind =
                    |order: &Order| order.lives() && order.register.first() == Some(&Entry::Tombstone);
                world.orders.iter().any(behind)
            }),
            Property::sometimes("units leave", |_: &Options, world: &World| {
                world.orders.iter().any(|order| order.shipped == 1)
            }),
        ]
    }
}

/// An order that is PENDING or CONFIRMED holds its own items.
fn holds(order: &Order) -> bool {
    let Some(Entry::Created(wanted)) = order.register.last() else { return true };
    match order.hold {
        Hold::Held { content, .. } | Hold::Bound { content, .. } => content == *wanted,
        _ => false,
    }
}

fn left(order: &Order) -> bool {
    match order.hold {
        Hold::Held { .. } | Hold::Bound { .. } | Hold::Shipped(_) => true,
        // Forgotten, or reserved again after that: then its units left exactly once.
        Hold::Nothing | Hold::Buried(_) | Hold::Duplicate(_) => order.shipped == 1,
        Hold::Cancelled(_) => false,
    }
}

/// At rest (no more calls, every event processed, every reservation expired), only orders hold stock, and what an order
/// holds is bound. An order with a dead letter is left out: it waits for an operator.
fn rests(options: &Options, world: &World, order: &Order) -> bool {
    if order.dead {
        return true;
    }
    let mut order = order.clone();
    if let Hold::Held { fence, .. } = order.hold
        && order.last() == fence
    {
        order.register.push(Entry::Tombstone);
    }
    settle(options, world, &mut order);
    match order.register.last() {
        None | Some(Entry::Tombstone | Entry::Cancelled) => {
            !matches!(order.hold, Hold::Held { .. } | Hold::Bound { .. })
        }
        Some(Entry::Created(_)) => matches!(order.hold, Hold::Bound { .. }),
        Some(Entry::Shipped) => !matches!(order.hold, Hold::Held { .. } | Hold::Bound { .. }),
    }
}

/// Delivers what the consumer has not acknowledged, and runs expiry on what is still merely held.
fn settle(options: &Options, world: &World, order: &mut Order) {
    let mut alone = World { orders: vec![order.clone()], slots: Vec::new(), wrong: world.wrong };
    let places = (0..order.last()).filter(|place| order.register[usize::from(*place)] != Entry::Tombstone);
    for place in places.filter(|place| order.acked & (1 << place) == 0) {
        if let Some(then) = moves::after(options, &alone, Move::Deliver(0, place, true)) {
            alone = then;
        }
    }
    if let Hold::Held { fence, .. } = alone.orders[0].hold {
        let last = alone.orders[0].last();
        alone.orders[0].late.clear();
        alone = moves::after(options, &alone, Move::Settle(0, fence, last)).unwrap_or(alone);
        let late: Vec<Late> = alone.orders[0].late.clone();
        for late in late {
            alone = moves::after(options, &alone, Move::Submit(0, late)).unwrap_or(alone);
        }
    }
    *order = alone.orders.remove(0);
}
