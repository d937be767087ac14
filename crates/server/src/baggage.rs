//! W3C baggage: selects the caller's entries that are forwarded. Must not forward an entry that is not on the list.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::headers::BAGGAGE;

/// Maximum size of the forwarded baggage, in bytes: the limit of W3C.
const MOST: usize = 8_192;

/// The keys that are forwarded. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Baggage(Arc<[String]>);

/// The forwarded entries of one call, in header format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept(pub(super) Box<str>);

impl Baggage {
    /// Forwards only these keys.
    pub fn new(keys: &[String]) -> Baggage {
        Baggage(keys.into())
    }

    /// The forwarded entries of a call with these headers.
    pub(super) fn of(&self, headers: &HeaderMap) -> Option<Kept> {
        if self.0.is_empty() {
            return None;
        }
        let texts = headers.get_all(&BAGGAGE).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        let entries = texts.flat_map(|text| text.split(',')).map(str::trim);
        let kept: Vec<&str> = entries.filter(|entry| self.has(entry)).collect();
        let kept = kept.join(",");
        (1..=MOST).contains(&kept.len()).then(|| Kept(kept.into()))
    }

    /// Whether the key of an entry (`key=value`, with properties after a semicolon) is on the list.
    fn has(&self, entry: &str) -> bool {
        entry.split_once('=').is_some_and(|(key, _)| self.0.iter().any(|known| known == key.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: &[&str], texts: &[&'static str]) -> Option<Kept> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let headers = texts.iter().map(|text| (BAGGAGE.clone(), HeaderValue::from_static(text)));
        Baggage::new(&keys).of(&headers.collect())
    }

    #[test]
    fn only_what_is_on_the_list_travels_on() {
        let texts = ["tenant=a;p=1, secret=x", "tenants=b , region = eu,tenant"];
        assert_eq!(of(&["tenant", "region"], &texts), Some(Kept("tenant=a;p=1,region = eu".into())));
        assert_eq!(of(&["other"], &texts), None);
        assert_eq!(of(&[], &texts), None);
    }
}
