//! Page tokens of ListStock: the last product of the page, with a checksum, so that one we did not make is known.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::limits::is_product_id;
use sha2::{Digest, Sha256};

const SUM: usize = 8;

/// The token of the page after this product.
pub fn token(product: &str) -> String {
    let mut bytes = sum(product).to_vec();
    bytes.extend_from_slice(product.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The product of a token; `None` for a token that is none of ours.
pub fn product(token: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (found, product) = bytes.split_at_checked(SUM)?;
    let product = String::from_utf8(product.to_vec()).ok()?;
    (is_product_id(&product) && found == sum(&product)).then_some(product)
}

fn sum(product: &str) -> [u8; SUM] {
    let digest = Sha256::new().chain_update(b"list_stock\0").chain_update(product).finalize();
    let mut sum = [0; SUM];
    sum.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_its_product_back_and_a_changed_one_nothing() {
        let made = token("lamp-1/x");
        assert_eq!(product(&made).as_deref(), Some("lamp-1/x"));
        for place in 0..made.len() {
            let mut changed = made.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(product(&String::from_utf8(changed).unwrap()), None, "byte {place}");
        }
        assert_eq!(product(""), None);
    }
}
