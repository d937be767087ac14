//! The index's orders, by ascending sequence of their creation. They are stored in blocks: a full block never moves, so
//! an order takes its own bytes and no more, while a vector takes up to twice as many, and three times as many while it
//! grows. Must not depend on customers.

use order_streams::status::Status;

/// Orders of one block: 384 KiB.
const BLOCK: usize = 1 << 14;

/// One order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// The sequence of its first event.
    pub(super) created: u64,
    /// The sequence of its last event.
    pub(super) last: u64,
    /// The customer's previous order.
    pub(super) older: u32,
    pub(super) status: Status,
}

/// All orders.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// All but the last are full.
    blocks: Vec<Vec<Slot>>,
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK + last.len())
    }

    pub(super) fn get(&self, place: usize) -> Option<&Slot> {
        self.blocks.get(place / BLOCK)?.get(place % BLOCK)
    }

    /// Adds one that was created after all others.
    pub(super) fn push(&mut self, slot: Slot) {
        if let Some(last) = self.blocks.last_mut().filter(|last| last.len() < BLOCK) {
            last.push(slot);
            return;
        }
        // The first block grows as a vector does.
        let mut block = Vec::with_capacity(if self.blocks.is_empty() { 1 } else { BLOCK });
        block.push(slot);
        self.blocks.push(block);
    }

    /// How many were created before a sequence.
    pub(super) fn before(&self, sequence: u64) -> usize {
        let begun = self.blocks.partition_point(|block| block[0].created < sequence);
        let Some(block) = begun.checked_sub(1) else { return 0 };
        block * BLOCK + self.blocks[block].partition_point(|slot| slot.created < sequence)
    }

    /// The order that this sequence created.
    pub(super) fn created(&self, sequence: u64) -> Option<&Slot> {
        self.get(self.before(sequence)).filter(|slot| slot.created == sequence)
    }

    /// The same, mutable.
    pub(super) fn created_mut(&mut self, sequence: u64) -> Option<&mut Slot> {
        let place = self.before(sequence);
        let slot = self.blocks.get_mut(place / BLOCK)?.get_mut(place % BLOCK)?;
        (slot.created == sequence).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(count: usize) -> Slots {
        let mut slots = Slots::default();
        for place in 0..count {
            let created = place as u64 * 3 + 1;
            slots.push(Slot { created, last: created, older: u32::MAX, status: Status::Pending });
        }
        slots
    }

    #[test]
    fn each_order_is_found_by_its_place_and_its_sequence_on_both_sides_of_a_block() {
        for count in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 7] {
            let mut slots = slots(count);
            assert_eq!(slots.len(), count);
            for place in (0..count).step_by(5).chain((count.saturating_sub(3))..count) {
                let created = place as u64 * 3 + 1;
                assert_eq!(slots.get(place).unwrap().created, created);
                assert_eq!(slots.before(created), place);
                assert_eq!(slots.before(created + 1), place + 1);
                assert_eq!(slots.created(created).unwrap().created, created);
                slots.created_mut(created).unwrap().last = created + 1;
                assert_eq!(slots.get(place).unwrap().last, created + 1);
                assert!(slots.created(created + 1).is_none() && slots.created_mut(created + 1).is_none());
            }
            assert!(slots.get(count).is_none());
            assert_eq!((slots.before(0), slots.before(u64::MAX)), (0, count));
        }
    }

    #[test]
    fn an_order_takes_24_bytes_and_a_block_is_allocated_as_a_whole() {
        assert_eq!(size_of::<Slot>(), 24);
        let slots = slots(5 * BLOCK + 1);
        let room: usize = slots.blocks.iter().map(Vec::capacity).sum();
        assert_eq!(room, 6 * BLOCK, "no room that is never used");
    }
}
