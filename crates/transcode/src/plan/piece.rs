//! Texts of a plan: compared and copied as sixteen bytes at once where they are no longer. Must not know what they say.

/// How many bytes are compared at once.
const WIDTH: usize = 16;

/// Which bytes belong to a text of each length.
const MASKS: [u128; WIDTH + 1] = {
    let mut masks = [u128::MAX; WIDTH + 1];
    let mut length = 0;
    while length < WIDTH {
        masks[length] = (1 << (8 * length)) - 1;
        length += 1;
    }
    masks
};

/// A text in the store of its plan.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Piece {
    /// The first bytes, then zeros.
    head: [u8; WIDTH],
    at: u32,
    length: u32,
}

impl Piece {
    /// Adds a text to the store. None if the store would exceed 4 GiB.
    pub(crate) fn add(store: &mut Vec<u8>, text: &[u8]) -> Option<Piece> {
        let (at, length) = (u32::try_from(store.len()).ok()?, u32::try_from(text.len()).ok()?);
        let mut head = [0; WIDTH];
        for (to, from) in head.iter_mut().zip(text) {
            *to = *from;
        }
        store.extend_from_slice(text);
        Some(Piece { head, at, length })
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        self.length as usize
    }

    pub(crate) fn text(self, store: &[u8]) -> &[u8] {
        store.get(self.at as usize..).and_then(|text| text.get(..self.len())).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn write(self, store: &[u8], out: &mut Vec<u8>) {
        let length = self.len();
        if length <= WIDTH {
            let at = out.len();
            out.extend_from_slice(&self.head);
            out.truncate(at + length);
        } else {
            out.extend_from_slice(self.text(store));
        }
    }

    /// Whether this text is `at` this place.
    #[inline]
    pub(crate) fn is_at(self, store: &[u8], bytes: &[u8], at: usize) -> bool {
        let length = self.len();
        let Some(found) = bytes.get(at..) else { return false };
        match found.first_chunk::<WIDTH>() {
            Some(head) => {
                let different = u128::from_le_bytes(*head) ^ u128::from_le_bytes(self.head);
                different & MASKS[length.min(WIDTH)] == 0
                    && (length <= WIDTH || found.starts_with(self.text(store)))
            }
            None => found.starts_with(self.text(store)),
        }
    }
}

/// A table of names. Shorter ones come first, so that most comparisons are of numbers.
#[derive(Debug, Default)]
pub(crate) struct Names<T>(Vec<(Box<[u8]>, T)>);

impl<T: Copy> Names<T> {
    /// Of names that occur twice, the first is kept.
    pub(crate) fn new(names: impl Iterator<Item = (Box<[u8]>, T)>) -> Names<T> {
        let mut names: Vec<_> = names.collect();
        // A stable sort: equal names keep their sequence.
        names.sort_by(|(one, _), (other, _)| (one.len(), one).cmp(&(other.len(), other)));
        names.dedup_by(|later, first| later.0 == first.0);
        Names(names)
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<T> {
        let found = self.0.binary_search_by(|(known, _)| (known.len(), &**known).cmp(&(name.len(), name)));
        found.ok().and_then(|index| self.0.get(index)).map(|(_, value)| *value)
    }
}

/// A set of small numbers; those below 64 need no allocation.
#[derive(Debug, Default)]
pub(crate) struct Bits {
    low: u64,
    more: Vec<u64>,
}

impl Bits {
    /// Whether it was not there before.
    #[inline]
    pub(crate) fn insert(&mut self, number: usize) -> bool {
        let bit = 1 << (number % 64);
        let word = if number < 64 { &mut self.low } else { self.word(number / 64 - 1) };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    #[cold]
    fn word(&mut self, index: usize) -> &mut u64 {
        if self.more.len() <= index {
            self.more.resize(index + 1, 0);
        }
        &mut self.more[index]
    }

    #[inline]
    pub(crate) fn contains(&self, number: usize) -> bool {
        let word = if number < 64 { self.low } else { self.more.get(number / 64 - 1).copied().unwrap_or(0) };
        word & (1 << (number % 64)) != 0
    }
}
