//! What `gateway reconcile --mend` makes a worker do (`settle.rs`), at any time and based on any read: if nothing was
//! lost, it must do no harm. Must not decide for the stock.

use crate::action::Move;
use crate::options::Options;
use crate::rules::{Wish, submit};
use crate::world::{Entry, Hold, Late, Order, World};

/// An order may be settled by any entry that was read of it. If there is no order, a tombstone may be appended,
/// whatever stock is held.
pub(crate) fn moves(options: &Options, order: &Order, number: usize, more: bool, moves: &mut Vec<Move>) {
    let last = order.last();
    if more && order.recorded().is_none() {
        moves.push(Move::Bury(number, last));
    }
    let from = if options.stale_reads { order.since } else { last };
    moves.extend((from..=last).map(|there| Move::Mend(number, there)));
}

/// `Settler::act` on the entry `there`: what it submits at once, and what may arrive at any time from then on.
pub(crate) fn mend(options: &Options, world: &mut World, number: usize, there: u8) {
    let order = &world.orders[number];
    let Some(place) = there.checked_sub(1) else { return };
    let late = match (order.register[usize::from(place)], order.hold) {
        (Entry::Tombstone, _) => Late::Disown(there),
        (Entry::Cancelled, _) => Late::Cancel(there),
        (Entry::Shipped, Hold::Shipped(_) | Hold::Duplicate(_)) => return,
        (Entry::Shipped, Hold::Nothing) if there <= order.floor => return,
        (entry @ (Entry::Created(_) | Entry::Shipped), _) => {
            let Some(content) = order.recorded() else { return };
            if submit(options, world, number, Wish::Reserve(content)).is_err() {
                return;
            }
            if entry == Entry::Shipped { Late::Ship(there) } else { Late::Bind(there) }
        }
    };
    world.orders[number].submit(late);
}
