//! Headers of messages: the one place that writes a value, so that none can hold what it must not. Must never know what
//! a header is for.

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use contract::ascii;

/// Puts a header with a text on a message. What is no visible ASCII becomes question marks: where it has to be read back,
/// it has to be encoded before (`contract::ascii::encode`).
pub fn put(headers: &mut HeaderMap, name: &'static str, text: impl AsRef<str>) {
    // Visible ASCII is always a value.
    headers.insert(HeaderName::from_static(name), HeaderValue::from(ascii::visible(text.as_ref()).as_ref()));
}

/// Puts a header with a text of ours on a message, which is visible ASCII.
pub fn fixed(headers: &mut HeaderMap, name: &'static str, text: &'static str) {
    headers.insert(HeaderName::from_static(name), HeaderValue::from(text));
}

/// Puts a header with a number on a message.
pub fn number(headers: &mut HeaderMap, name: &'static str, number: u64) {
    headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_put_there_is_one_line_of_visible_ascii() {
        let mut headers = HeaderMap::new();
        put(&mut headers, "Some-Text", "Zoë\r\nNats-Rollup: all\0");
        number(&mut headers, "Some-Number", 7);
        let text = |name: &str| headers.get(name).map(HeaderValue::as_str);
        assert_eq!((text("Some-Text"), text("Some-Number")), (Some("Zo???Nats-Rollup: all?"), Some("7")));
    }
}
