//! Page and resume tokens: a position in the record, sealed. Pure.

use bridge::token::Seal;
pub use bridge::token::{Foreign, hash as filter};

const PAGE: u8 = b'p';
const RESUME: u8 = b'r';

/// Makes and reads the tokens of one stream.
#[derive(Debug, Clone)]
pub struct Tokens(Seal);

impl Tokens {
    /// The tokens of the stream with this identity.
    pub fn new(identity: impl Into<String>) -> Tokens {
        Tokens(Seal::new(identity))
    }

    /// A page token: where a page ended, in a list with this filter.
    pub fn page(&self, filter: u64, position: u64) -> String {
        self.0.seal(PAGE, [filter, position])
    }

    /// The position in a page token that was made for this filter.
    pub fn read_page(&self, token: &str, filter: u64) -> Result<u64, Foreign> {
        let [made_for, position] = self.0.open(PAGE, token)?;
        if made_for == filter { Ok(position) } else { Err(Foreign) }
    }

    /// A resume token: the sequence after which to continue.
    pub fn resume(&self, sequence: u64) -> String {
        self.0.seal(RESUME, [sequence])
    }

    /// The sequence in a resume token.
    pub fn read_resume(&self, token: &str) -> Result<u64, Foreign> {
        let [sequence] = self.0.open(RESUME, token)?;
        Ok(sequence)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens() -> Tokens {
        Tokens::new("0d3f")
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_read_back(filter in any::<u64>(), position in any::<u64>()) {
            prop_assert_eq!(tokens().read_page(&tokens().page(filter, position), filter), Ok(position));
            prop_assert_eq!(tokens().read_resume(&tokens().resume(position)), Ok(position));
        }

        #[test]
        fn any_flipped_bit_is_noticed(position in any::<u64>()) {
            for token in [tokens().resume(position), tokens().page(7, position)] {
                for place in 0..token.len() * 8 {
                    let mut bytes = token.clone().into_bytes();
                    bytes[place / 8] ^= 1 << (place % 8);
                    let Ok(changed) = String::from_utf8(bytes) else { continue };
                    prop_assert_eq!(tokens().read_resume(&changed), Err(Foreign));
                    prop_assert_eq!(tokens().read_page(&changed, 7), Err(Foreign));
                }
            }
        }

        #[test]
        fn nonsense_is_foreign_and_never_a_panic(text in ".{0,80}") {
            prop_assert_eq!(tokens().read_resume(&text), Err(Foreign));
            prop_assert_eq!(tokens().read_page(&text, 0), Err(Foreign));
        }
    }

    #[test]
    fn a_token_is_good_for_one_stream_one_filter_and_one_use() {
        let (page, resume) = (tokens().page(1, 5), tokens().resume(5));
        assert_eq!(Tokens::new("other").read_page(&page, 1), Err(Foreign));
        assert_eq!(Tokens::new("other").read_resume(&resume), Err(Foreign));
        assert_eq!(tokens().read_page(&page, 2), Err(Foreign));
        assert_eq!(tokens().read_resume(&page), Err(Foreign));
        assert_eq!(tokens().read_page(&resume, 1), Err(Foreign));
    }

    #[test]
    fn filters_differ_where_their_parts_do() {
        assert_ne!(filter(["ab", "c"]), filter(["a", "bc"]));
        assert_ne!(filter(["a"]), filter(["a", ""]));
    }
}
