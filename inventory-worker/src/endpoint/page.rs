//! Page tokens: the last product or order of the page, with a checksum, so that foreign tokens are recognised.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::limits::{Reader, is_product_id};
use contract::subject;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const SUM: usize = 8;

const STOCK: &str = "list_stock";
const RESERVATIONS: &str = "list_reservations";

/// The token of the page after this product.
pub fn token(product: &str) -> String {
    write(STOCK, product)
}

/// The product of a token; `None` for a foreign token.
pub fn product(token: &str) -> Option<String> {
    read(STOCK, token).filter(|product| is_product_id(product))
}

/// The token of the page after this order.
pub fn token_of(order: Uuid) -> String {
    write(RESERVATIONS, &order.to_string())
}

/// The order of a token; `None` for a foreign token.
pub fn order(token: &str) -> Option<Uuid> {
    subject::order(&read(RESERVATIONS, token)?)
}

/// What a page of this rpc comes after: nothing, if there is no token. `None` for a foreign token, which is reported as
/// a violation.
pub(super) fn after<T>(
    reader: &mut Reader,
    token: &str,
    last: fn(&str) -> Option<T>,
    rpc: &str,
) -> Option<Option<T>> {
    let after = if token.is_empty() { Some(None) } else { last(token).map(Some) };
    if after.is_none() {
        reader.fault("page_token", format!("must be empty or a next_page_token of {rpc}"));
    }
    after
}

fn write(list: &str, last: &str) -> String {
    let mut bytes = sum(list, last).to_vec();
    bytes.extend_from_slice(last.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read(list: &str, token: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (found, last) = bytes.split_at_checked(SUM)?;
    let last = String::from_utf8(last.to_vec()).ok()?;
    (found == sum(list, &last)).then_some(last)
}

fn sum(list: &str, last: &str) -> [u8; SUM] {
    let digest = Sha256::new().chain_update(list).chain_update(b"\0").chain_update(last).finalize();
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
        assert_eq!(order(&made), None, "of another list");
        assert_eq!(order(&token_of(Uuid::from_u128(7))), Some(Uuid::from_u128(7)));
    }
}
