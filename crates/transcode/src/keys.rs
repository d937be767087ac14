//! The keys of a map that have been seen. Must not be open to keys that are chosen to collide: its hashes are seeded.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::plan::Op;

/// How many keys are compared one by one.
const FEW: usize = 8;

/// A key by its value: the same however it is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key<'a> {
    Number(u64),
    Text(Cow<'a, [u8]>),
}

impl Key<'_> {
    /// The key that decoders make of a number on the wire.
    pub(crate) fn number(op: Op, number: u64) -> Key<'static> {
        Key::Number(match op {
            Op::Bool => u64::from(number != 0),
            Op::Int32 | Op::Uint32 | Op::Sint32 | Op::Fixed32 | Op::Sfixed32 => u64::from(number as u32),
            _ => number,
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Keys<'a> {
    few: Vec<Key<'a>>,
    many: HashSet<Key<'a>>,
}

impl<'a> Keys<'a> {
    /// Whether the key was not there before.
    pub(crate) fn insert(&mut self, key: Key<'a>) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(key);
        }
        if self.few.contains(&key) {
            return false;
        }
        self.few.push(key);
        if self.few.len() > FEW {
            self.many.extend(self.few.drain(..));
        }
        true
    }
}
