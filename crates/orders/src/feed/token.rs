//! Page and resume tokens: a position in the record with a checksum, so that a token of another stream or filter and an
//! altered one are recognised. The checksum is no secret and grants nothing. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

const VERSION: u8 = 1;
const PAGE: u8 = b'p';
const RESUME: u8 = b'r';
/// Bytes of the checksum.
const SUM: usize = 8;

/// Makes and reads the tokens of one stream.
#[derive(Debug, Clone)]
pub struct Tokens {
    identity: String,
}

/// A token of another stream or filter, or an altered one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign;

impl Tokens {
    /// The tokens of the stream with this identity.
    pub fn new(identity: impl Into<String>) -> Tokens {
        Tokens { identity: identity.into() }
    }

    /// A page token: where a page ended, in a list with this filter.
    pub fn page(&self, filter: u64, position: u64) -> String {
        self.seal(PAGE, [filter, position])
    }

    /// The position in a page token that was made for this filter.
    pub fn read_page(&self, token: &str, filter: u64) -> Result<u64, Foreign> {
        let [made_for, position] = self.open(PAGE, token)?;
        if made_for == filter { Ok(position) } else { Err(Foreign) }
    }

    /// A resume token: the sequence after which to continue.
    pub fn resume(&self, sequence: u64) -> String {
        self.seal(RESUME, [sequence])
    }

    /// The sequence in a resume token.
    pub fn read_resume(&self, token: &str) -> Result<u64, Foreign> {
        let [sequence] = self.open(RESUME, token)?;
        Ok(sequence)
    }

    fn seal<const N: usize>(&self, kind: u8, fields: [u64; N]) -> String {
        let mut bytes = vec![VERSION, kind];
        bytes.extend(fields.iter().flat_map(|field| field.to_be_bytes()));
        let sum = self.sum(&bytes);
        bytes.extend(sum);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn open<const N: usize>(&self, kind: u8, token: &str) -> Result<[u64; N], Foreign> {
        // No token of ours is longer, so a longer one is not decoded.
        if token.len() > 64 {
            return Err(Foreign);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Foreign)?;
        let (body, sum) = bytes.split_at_checked(2 + 8 * N).ok_or(Foreign)?;
        if sum != self.sum(body) || !body.starts_with(&[VERSION, kind]) {
            return Err(Foreign);
        }
        let mut fields = [0; N];
        for (field, bytes) in fields.iter_mut().zip(body[2..].chunks_exact(8)) {
            *field = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        Ok(fields)
    }

    fn sum(&self, body: &[u8]) -> [u8; SUM] {
        let digest =
            Sha256::new().chain_update(&self.identity).chain_update([0]).chain_update(body).finalize();
        let mut sum = [0; SUM];
        sum.copy_from_slice(&digest[..SUM]);
        sum
    }
}

/// A hash of a filter, the same in every gateway.
pub fn filter<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let hash = parts.into_iter().fold(Sha256::new(), |hash, part| hash.chain_update(part).chain_update([0]));
    hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
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
