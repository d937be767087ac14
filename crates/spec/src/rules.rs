//! Applies the workers' own rules, `inventory_worker::stock::Command::decide`, to the model's ledger. Must not decide
//! anything itself.

use contract::Item;
use inventory_worker::stock::rules::View;
use inventory_worker::stock::{
    Adjusted, Command, Fact, Horizon, Level, Line, Phase, Refusal, Release, Reservation,
};
use uuid::Uuid;

use crate::options::{Mutant, Options};
use crate::world::{Hold, World};

const PRODUCT: &str = "unit";

/// The ledger as the rules see it: one product, and the order of the command.
struct Ledger {
    level: Level,
    reservation: Option<Reservation>,
    content: Option<u8>,
    floor: u8,
}

impl View for Ledger {
    fn level(&self, _: &str) -> Option<Level> {
        Some(self.level)
    }

    fn reservation(&self, _: &Uuid) -> Option<&Reservation> {
        self.reservation.as_ref()
    }

    fn holds(&self, _: &Uuid, items: &[Item]) -> bool {
        self.content.is_some_and(|content| items == items_of(content))
    }

    fn adjusted(&self, _: &str) -> Option<Adjusted> {
        None
    }

    fn horizon(&self) -> Horizon {
        Horizon { before: u64::MAX, floor: self.floor.into() }
    }
}

/// Contents 0 and 1 request one unit each. They differ in a second product that is not modelled.
fn items_of(content: u8) -> Vec<Item> {
    let item = |product: &str| Item { product: product.into(), quantity: 1 };
    if content == 0 { vec![item(PRODUCT)] } else { vec![item(PRODUCT), item("other")] }
}

/// The state of an order in the ledger after a command, by the fact that the rules return.
pub(crate) fn decide(
    world: &World,
    stock: u8,
    order: usize,
    hold: Hold,
    wish: Wish,
) -> Result<Option<Hold>, Refusal> {
    let level = level(world, stock);
    let (phase, fence, content) = phase(hold);
    let reservation =
        phase.map(|phase| Reservation { items: [].into(), phase, fence: fence.into(), changed: 0 });
    let ledger = Ledger { level, reservation, content, floor: world.orders[order].floor };
    let id = Uuid::from_u128(1 + order as u128);
    let (command, content) = match wish {
        Wish::Reserve(content) => {
            (Command::Reserve { order: id, items: items_of(content), expires_at: Some(1) }, content)
        }
        Wish::Bind(event) => (Command::Bind(id, event.into()), content.unwrap_or(0)),
        Wish::Cancel(event) => (Command::Cancel(id, event.into()), content.unwrap_or(0)),
        Wish::Ship(event) => (Command::Ship(id, event.into()), content.unwrap_or(0)),
        Wish::Expire(tombstone) => (Command::Expire(id, tombstone.into()), content.unwrap_or(0)),
        Wish::Drop(event) => (Command::Drop(id, event.into()), content.unwrap_or(0)),
        Wish::Disown(tombstone) => (Command::Disown(id, tombstone.into()), content.unwrap_or(0)),
    };
    Ok(command.decide(&ledger)?.map(|fact| after(&fact, content, fence)))
}

/// A command to the ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wish {
    Reserve(u8),
    Bind(u8),
    Cancel(u8),
    Ship(u8),
    Expire(u8),
    Drop(u8),
    Disown(u8),
}

/// On hand and reserved.
pub(crate) fn level(world: &World, stock: u8) -> Level {
    let held = |hold: Hold| matches!(hold, Hold::Held { .. } | Hold::Bound { .. });
    let shipped: u32 = world.orders.iter().map(|order| u32::from(order.shipped)).sum();
    let reserved = world.orders.iter().filter(|order| held(order.hold)).count();
    Level {
        on_hand: u32::from(stock).saturating_sub(shipped),
        reserved: u32::try_from(reserved).unwrap_or(u32::MAX),
    }
}

/// Whether the ledger may forget it: `Reservation::forgettable`, as it is.
pub(crate) fn forgettable(hold: Hold, floor: u8) -> bool {
    let (phase, fence, _) = phase(hold);
    let horizon = Horizon { before: u64::MAX, floor: floor.into() };
    phase.is_some_and(|phase| {
        Reservation { items: Box::<[Line]>::default(), phase, fence: fence.into(), changed: 0 }
            .forgettable(horizon)
    })
}

fn phase(hold: Hold) -> (Option<Phase>, u8, Option<u8>) {
    let released = |by| Some(Phase::Released { by });
    match hold {
        Hold::Nothing => (None, 0, None),
        Hold::Held { content, fence } => (Some(Phase::Held { expires_at: Some(1) }), fence, Some(content)),
        Hold::Bound { content, fence } => (Some(Phase::Bound { event: 0 }), fence, Some(content)),
        Hold::Buried(tombstone) => (released(Release::Tombstone(tombstone.into())), 0, None),
        Hold::Cancelled(event) => (released(Release::Cancelled(event.into())), 0, None),
        Hold::Duplicate(event) => (released(Release::Duplicate(event.into())), 0, None),
        Hold::Shipped(event) => (Some(Phase::Shipped { event: event.into() }), 0, None),
    }
}

/// The state of an order in the ledger after a fact.
fn after(fact: &Fact, content: u8, fence: u8) -> Hold {
    let small = |sequence: u64| u8::try_from(sequence).unwrap_or(u8::MAX);
    match fact {
        Fact::Reserved { fence, .. } => Hold::Held { content, fence: small(*fence) },
        Fact::Bound { .. } => Hold::Bound { content, fence },
        Fact::Released { by: Release::Tombstone(tombstone), .. } => Hold::Buried(small(*tombstone)),
        Fact::Released { by: Release::Cancelled(event), .. } => Hold::Cancelled(small(*event)),
        Fact::Released { by: Release::Duplicate(event), .. } => Hold::Duplicate(small(*event)),
        Fact::Shipped { event, .. } => Hold::Shipped(small(*event)),
        Fact::Adjusted { .. } | Fact::Counted { .. } | Fact::Removed { .. } | Fact::Forgot(_) => {
            Hold::Nothing
        }
    }
}

/// A command is decided on the current ledger: one that was decided on an older state is refused by the
/// compare-and-set, and decided again.
pub(crate) fn submit(options: &Options, world: &mut World, order: usize, wish: Wish) -> Result<(), Refusal> {
    let now = world.orders[order].hold;
    let hold = match (decide(world, options.stock, order, now, wish)?, wish, now) {
        (None, Wish::Expire(tombstone), Hold::Held { fence, .. })
            if options.is(Mutant::OldTombstone) && tombstone == fence =>
        {
            Some(Hold::Buried(tombstone))
        }
        (None, Wish::Disown(tombstone), Hold::Bound { .. }) if options.is(Mutant::AnyTombstone) => {
            Some(Hold::Buried(tombstone))
        }
        (hold, _, _) => hold,
    };
    if let Some(hold) = hold {
        world.orders[order].turn(hold, options.stale_barrier);
    }
    Ok(())
}
