//! The moves of the model and their effect. Each move names the code that it models; the workers' own rules decide for
//! the stock. Must not check anything.

use inventory_worker::stock::Refusal;

use crate::action::Move;
use crate::mend;
use crate::options::{Mutant, Options};
use crate::rules::{self, Wish, decide, level, submit};
use crate::world::{Entry, Hold, Late, Slot, Step, World, Wrong};

/// Everything that may happen next.
pub(crate) fn moves(options: &Options, world: &World, moves: &mut Vec<Move>) {
    for (number, slot) in world.slots.iter().enumerate() {
        calls(options, world, number, slot, moves);
    }
    for (number, order) in world.orders.iter().enumerate() {
        let last = order.last();
        for content in 0..2_u8 {
            let place = usize::from(content);
            if order.sent[place] & (1 << last) != 0 {
                moves.push(Move::Store(number, content));
            }
            if order.asked[place] {
                moves.push(Move::Again(number, content));
            }
        }
        let buried = order.register.iter().filter(|entry| **entry == Entry::Tombstone).count();
        if !order.dead || options.is(Mutant::BlindExpiry) {
            bury(options, order, number, buried < usize::from(options.tombstones), moves);
        }
        if options.reconcile {
            mend::moves(options, order, number, buried < usize::from(options.tombstones), moves);
        }
        moves.extend(order.late.iter().map(|late| Move::Submit(number, *late)));
        deliver(options, order, number, moves);
        if order.lives() {
            moves.extend([Move::Cancel(number), Move::Ship(number)]);
        }
        let idle = world.slots.iter().all(|slot| slot.order != number || slot.step == Step::Idle);
        let floor = if options.is(Mutant::EarlyForget) { last } else { order.floor_now() };
        if options.forget && idle && rules::forgettable(order.hold, floor) {
            moves.push(Move::Forget(number));
        }
    }
}

fn calls(options: &Options, world: &World, number: usize, slot: &Slot, moves: &mut Vec<Move>) {
    if slot.step == Step::Idle {
        return moves.push(Move::Call(number));
    }
    moves.push(Move::Die(number));
    let order = &world.orders[slot.order];
    match slot.step {
        // No entry follows the expected sequence yet: it waits and repeats.
        Step::Record { fence } if order.last() == fence => {}
        Step::Short | Step::Finished | Step::Read { .. } if options.stale_reads => {
            moves.extend((order.since..=order.last()).map(|there| Move::Go(number, there)));
        }
        _ => moves.push(Move::Go(number, order.last())),
    }
}

/// `Releaser::release`, for expiry and release_inventory: the fence is that of the current or an earlier reservation.
fn bury(options: &Options, order: &crate::world::Order, number: usize, more: bool, moves: &mut Vec<Move>) {
    let last = order.last();
    for fence in (0..8).filter(|fence| order.fences & (1 << fence) != 0) {
        if options.is(Mutant::NoTombstone) {
            moves.push(Move::Settle(number, fence, last));
        } else if fence == last && more {
            moves.push(Move::Bury(number, fence));
        } else if fence < last {
            // A read that is not newer than what was expected proves nothing: it is repeated.
            let from = if options.stale_reads { order.since.max(fence + 1) } else { last };
            moves.extend((from..=last).map(|there| Move::Settle(number, fence, there)));
        }
    }
}

fn deliver(options: &Options, order: &crate::world::Order, number: usize, moves: &mut Vec<Move>) {
    for (place, entry) in (0_u8..).zip(&order.register) {
        // An event that was acknowledged before its id was forgotten is not redelivered.
        let over = place < order.since && order.acked & (1 << place) != 0;
        if *entry == Entry::Tombstone || over {
            continue;
        }
        moves.extend([true, false].map(|acked| Move::Deliver(number, place, acked)));
        if options.stale_barrier {
            moves.extend(order.past.iter().map(|hold| Move::DeliverBehind(number, place, *hold)));
        }
        if options.dead_letters && !order.dead && order.acked & (1 << place) == 0 {
            moves.push(Move::Poison(number, place));
        }
    }
}

/// The world after a move; `None` if nothing changes.
pub(crate) fn after(options: &Options, world: &World, next: Move) -> Option<World> {
    let mut then = world.clone();
    match next {
        Move::Call(number) => then.slots[number].step = Step::Check,
        Move::Die(number) => then.slots[number].step = Step::Idle,
        Move::Go(number, there) => go(options, &mut then, number, there),
        Move::Store(order, content) => then.orders[order].register.push(Entry::Created(content)),
        Move::Again(order, content) => drop(submit(options, &mut then, order, Wish::Reserve(content))),
        Move::Bury(order, _) => then.orders[order].register.push(Entry::Tombstone),
        Move::Settle(order, fence, there) => settle(options, &mut then, order, fence, there),
        Move::Submit(order, late) => drop(submit(options, &mut then, order, late.into())),
        Move::Deliver(order, place, acked) => {
            let wish = asked(&then, order, place);
            if submit(options, &mut then, order, wish).is_ok() && acked {
                then.orders[order].acked |= 1 << place;
            }
        }
        Move::DeliverBehind(order, place, hold) => {
            // Its append would be refused, as another came first. An event that needs no append is acknowledged.
            let evidence = match decide(&then, options.stock, order, hold, asked(&then, order, place)) {
                Ok(None) => true,
                Ok(Some(_)) => false,
                Err(_) => options.is(Mutant::NoEvidence),
            };
            if evidence {
                then.orders[order].acked |= 1 << place;
            }
        }
        Move::Poison(order, place) => {
            then.orders[order].dead = true;
            then.orders[order].acked |= 1 << place;
        }
        Move::Mend(order, there) => mend::mend(options, &mut then, order, there),
        Move::Cancel(order) => then.orders[order].register.push(Entry::Cancelled),
        Move::Ship(order) => then.orders[order].register.push(Entry::Shipped),
        Move::Forget(number) => {
            let order = &mut then.orders[number];
            order.floor =
                order.floor.max(if options.is(Mutant::EarlyForget) { 0 } else { order.floor_now() });
            order.turn(Hold::Nothing, false);
            // No call, command or deposed leader lives as long as an id is known.
            (order.past, order.late) = (Vec::new(), Vec::new());
            (order.fences, order.sent, order.asked) = (0, [0; 2], [false; 2]);
            order.since = order.last();
        }
    }
    (then != *world).then_some(then)
}

/// The command of an event (`events.rs`).
fn asked(world: &World, order: usize, place: u8) -> Wish {
    let sequence = place + 1;
    match world.orders[order].register[usize::from(place)] {
        Entry::Created(_) | Entry::Tombstone => Wish::Bind(sequence),
        Entry::Cancelled => Wish::Cancel(sequence),
        Entry::Shipped => Wish::Ship(sequence),
    }
}

/// The result of `bury` decides (`release.rs`, `expiry.rs`): a tombstone releases, an order is settled by its status.
fn settle(options: &Options, world: &mut World, number: usize, fence: u8, there: u8) {
    let order = &mut world.orders[number];
    let acknowledged = order.acked & (1 << there.saturating_sub(1)) != 0;
    let last = there.checked_sub(1).map(|place| order.register[usize::from(place)]);
    match last {
        Some(Entry::Tombstone) => order.submit(Late::Expire(there)),
        Some(Entry::Created(_)) => order.submit(Late::Bind(there)),
        Some(Entry::Cancelled) => order.submit(Late::Cancel(there)),
        Some(Entry::Shipped) if acknowledged => order.submit(Late::Drop(there)),
        Some(Entry::Shipped) => {}
        None => {}
    }
    if options.is(Mutant::NoTombstone) {
        order.submit(Late::Expire(fence + 1));
    }
}

/// The next step of a call (`flow.rs`).
fn go(options: &Options, world: &mut World, number: usize, there: u8) {
    let Slot { order: place, content, step } = world.slots[number];
    let order = &world.orders[place];
    let read = |there: u8| there.checked_sub(1).map(|last| order.register[usize::from(last)]);
    let end = Step::Idle;
    let next = match step {
        Step::Idle => end,
        Step::Check => {
            let short = level(world, options.stock).available() == 0;
            if short && options.is(Mutant::FinalCheck) {
                refuse(world, place, content);
                world.slots[number].step = end;
                return;
            }
            Step::Reserve { buried: 0 }
        }
        Step::Reserve { buried } => return reserve(options, world, number, buried),
        Step::Short => match read(there) {
            Some(Entry::Tombstone) | None => {
                // Stock that a twin has reserved since is the twin's. A stale read is not a fault of the protocol.
                if !options.stale_reads && order.recorded() == Some(content) {
                    world.wrong = Some(Wrong::Refused);
                }
                end
            }
            Some(Entry::Created(_) | Entry::Cancelled | Entry::Shipped) => end,
        },
        Step::Finished => {
            if matches!(read(there), Some(Entry::Tombstone) | None) && !options.stale_reads {
                world.wrong = Some(Wrong::Contradiction);
            }
            end
        }
        // The first entry after the expected one shows who wrote it.
        Step::Record { fence } => match order.register.get(usize::from(fence)) {
            Some(Entry::Created(_)) => end,
            _ => Step::Read { fence },
        },
        Step::Read { fence } => match read(there) {
            Some(Entry::Tombstone) if options.release_first => Step::Release { buried: there },
            Some(Entry::Tombstone) => Step::Reserve { buried: there },
            // A new leader may be briefly behind: nothing newer is known.
            None => Step::Reserve { buried: fence },
            Some(Entry::Created(_) | Entry::Cancelled | Entry::Shipped) => end,
        },
        Step::Release { buried } => {
            // release_inventory: like `bury` and `settle`, for what is held now.
            if let Hold::Held { fence, .. } = order.hold {
                let last = order.last();
                if fence < last {
                    let found = order.register[usize::from(last - 1)];
                    if found == Entry::Tombstone {
                        world.orders[place].submit(Late::Expire(last));
                    }
                }
            }
            Step::Reserve { buried }
        }
    };
    world.slots[number].step = next;
}

fn reserve(options: &Options, world: &mut World, number: usize, buried: u8) {
    let Slot { order: place, content, .. } = world.slots[number];
    world.orders[place].asked[usize::from(content)] = true;
    let next = match submit(options, world, place, Wish::Reserve(content)) {
        Ok(()) => match world.orders[place].hold {
            Hold::Held { fence, .. } | Hold::Bound { fence, .. }
                if fence >= buried || options.release_first =>
            {
                world.orders[place].sent[usize::from(content)] |= 1 << fence;
                Step::Record { fence }
            }
            // The ledger does not know the tombstone.
            _ => Step::Release { buried },
        },
        Err(Refusal::Short(_)) if options.is(Mutant::FinalRefusal) => {
            refuse(world, place, content);
            Step::Idle
        }
        Err(Refusal::Short(_)) => Step::Short,
        Err(Refusal::Finished) => Step::Finished,
        Err(_) => Step::Idle,
    };
    world.slots[number].step = next;
}

/// A refusal for insufficient stock: wrong if the call's own order exists, or holds that very stock.
fn refuse(world: &mut World, place: usize, content: u8) {
    let order = &world.orders[place];
    let own = match order.hold {
        Hold::Held { content: held, .. } | Hold::Bound { content: held, .. } => held == content,
        _ => false,
    };
    if own || order.recorded() == Some(content) {
        world.wrong = Some(Wrong::Refused);
    }
}

impl From<Late> for Wish {
    fn from(late: Late) -> Wish {
        match late {
            Late::Expire(tombstone) => Wish::Expire(tombstone),
            Late::Bind(event) => Wish::Bind(event),
            Late::Cancel(event) => Wish::Cancel(event),
            Late::Drop(event) => Wish::Drop(event),
            Late::Ship(event) => Wish::Ship(event),
            Late::Disown(tombstone) => Wish::Disown(tombstone),
        }
    }
}
