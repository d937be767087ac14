//! Message headers: the only place that writes a value, so that no value can be invalid. Must not depend on what a
//! header is for.

use std::str::FromStr as _;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use wire::ascii;

/// Sets a header to a text. Characters other than visible ASCII become question marks: a text that has to be read back
/// must be encoded first (`wire::ascii::encode`).
pub fn put(headers: &mut HeaderMap, name: &'static str, text: impl AsRef<str>) {
    // Visible ASCII is always a valid value.
    headers.insert(HeaderName::from_static(name), HeaderValue::from(ascii::visible(text.as_ref()).as_ref()));
}

/// Adds a value to a header whose name is chosen at run time, behind those it has. A name that cannot be one adds nothing.
pub fn pass(headers: &mut HeaderMap, name: &str, text: &str) {
    if let Ok(name) = HeaderName::from_str(name) {
        headers.append(name, HeaderValue::from(ascii::visible(text).as_ref()));
    }
}

/// Sets a header to a constant text, which is visible ASCII.
pub fn fixed(headers: &mut HeaderMap, name: &'static str, text: &'static str) {
    headers.insert(HeaderName::from_static(name), HeaderValue::from(text));
}

/// Sets a header to a number.
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
        pass(&mut headers, "Some-Name", "a\r\nb");
        pass(&mut headers, "Some-Name", "c");
        pass(&mut headers, "Bad\r\nName", "d");
        let all: Vec<_> = headers.get_all("Some-Name").map(HeaderValue::as_str).collect();
        assert_eq!((all, headers.len()), (vec!["a??b", "c"], 3));
        let text = |name: &str| headers.get(name).map(HeaderValue::as_str);
        assert_eq!((text("Some-Text"), text("Some-Number")), (Some("Zo???Nats-Rollup: all?"), Some("7")));
    }
}
