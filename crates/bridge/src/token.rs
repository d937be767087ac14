//! Tokens: numbers with a checksum, so that a token of another kind or another owner and an altered one are recognised.
//! The checksum is no secret and grants nothing. Pure: must not know what the numbers mean.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

const VERSION: u8 = 1;
/// Bytes of the checksum.
const SUM: usize = 8;
/// The most characters of a token.
const LONGEST: usize = 64;

/// Makes and reads the tokens of one owner, such as a stream.
#[derive(Debug, Clone)]
pub struct Seal {
    owner: String,
}

/// A token of another kind or owner, or an altered one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign;

impl Seal {
    /// Of this owner.
    pub fn new(owner: impl Into<String>) -> Seal {
        Seal { owner: owner.into() }
    }

    /// The token of some numbers, at most four.
    pub fn seal<const N: usize>(&self, kind: u8, numbers: [u64; N]) -> String {
        let mut bytes = vec![VERSION, kind];
        bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        let sum = self.sum(&bytes);
        bytes.extend(sum);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The numbers in a token.
    ///
    /// # Errors
    ///
    /// If it was not sealed by this owner, as this kind, with as many numbers.
    pub fn open<const N: usize>(&self, kind: u8, token: &str) -> Result<[u64; N], Foreign> {
        // No token of ours is longer, so a longer one is not decoded.
        if token.len() > LONGEST {
            return Err(Foreign);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Foreign)?;
        let (body, sum) = bytes.split_at_checked(2 + 8 * N).ok_or(Foreign)?;
        if sum != self.sum(body) || !body.starts_with(&[VERSION, kind]) {
            return Err(Foreign);
        }
        let mut numbers = [0; N];
        for (number, bytes) in numbers.iter_mut().zip(body[2..].chunks_exact(8)) {
            *number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        Ok(numbers)
    }

    fn sum(&self, body: &[u8]) -> [u8; SUM] {
        let digest = Sha256::new().chain_update(&self.owner).chain_update([0]).chain_update(body).finalize();
        let mut sum = [0; SUM];
        sum.copy_from_slice(&digest[..SUM]);
        sum
    }
}

/// A hash of some texts, the same in every gateway.
pub fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let hash = parts.into_iter().fold(Sha256::new(), |hash, part| hash.chain_update(part).chain_update([0]));
    hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_read_back_and_an_altered_token_is_foreign() {
        let seal = Seal::new("0d3f");
        for numbers in [[0, 0, 0], [1, 2, 3], [u64::MAX, 7, 1 << 40]] {
            let token = seal.seal(b's', numbers);
            assert!(token.len() <= LONGEST);
            assert_eq!(seal.open(b's', &token), Ok(numbers));
            for place in 0..token.len() {
                let mut bytes = token.clone().into_bytes();
                bytes[place] = if bytes[place] == b'x' { b'y' } else { b'x' };
                let altered = String::from_utf8(bytes).unwrap();
                assert_eq!(seal.open::<3>(b's', &altered), Err(Foreign));
            }
        }
    }

    #[test]
    fn a_token_is_good_for_one_owner_one_kind_and_one_number_of_numbers() {
        let token = Seal::new("0d3f").seal(b's', [1, 2]);
        assert_eq!(Seal::new("0d3e").open::<2>(b's', &token), Err(Foreign));
        assert_eq!(Seal::new("0d3f").open::<2>(b't', &token), Err(Foreign));
        assert_eq!(Seal::new("0d3f").open::<1>(b's', &token), Err(Foreign));
        for nonsense in ["", "x", "*", "ä", &"A".repeat(65)] {
            assert_eq!(Seal::new("0d3f").open::<2>(b's', nonsense), Err(Foreign));
        }
    }

    #[test]
    fn hashes_differ_where_their_parts_do() {
        assert_ne!(hash(["ab", "c"]), hash(["a", "bc"]));
        assert_ne!(hash(["a"]), hash(["a", ""]));
    }
}
