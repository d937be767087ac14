//! Metadata of gRPC calls as headers on NATS: which values both can carry. Must not know which names pass.

/// Metadata: keys in lower case, with values as [`values`] gives them. Values of one key are in their order.
pub type Metadata = Vec<(Box<str>, Box<str>)>;

/// The metadata of a response: keys in lower case, and values that are valid in gRPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseMetadata {
    /// Before the messages.
    pub initial: Metadata,
    /// Behind them.
    pub trailers: Metadata,
}

/// Bytes that HTTP/2 counts for a header besides its name and its value.
pub const FIELD: usize = 32;
/// What keys end with whose values are base64.
const BINARY: &str = "-bin";

/// The values in a header of this key, if it can be one in gRPC and on NATS: visible ASCII, and base64 of a key that ends
/// with `-bin`, where commas separate several. Blanks around a value do not belong to it.
pub fn values<'a>(key: &str, header: &'a [u8]) -> Option<impl Iterator<Item = &'a str>> {
    let text = std::str::from_utf8(header).ok()?;
    let binary = key.ends_with(BINARY);
    // Visible text has no line breaks.
    let values = text.split(if binary { ',' } else { '\n' }).map(|value| value.trim_matches(' '));
    let valid = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let fits = valid && (!binary || values.clone().all(is_base64));
    // Commas alone are no values.
    let empty = text.is_empty();
    fits.then(|| values.filter(move |value| !binary || empty || !value.is_empty()))
}

/// Whether this is base64, with or without padding, of which no bit is lost.
fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let rest = match (text.len() - body.len(), text.len() % 4, body.len() % 4) {
        (0, _, rest @ (0 | 2 | 3)) | (1, 0, rest @ 3) | (2, 0, rest @ 2) => rest,
        _ => return false,
    };
    let Some(digits) = body.bytes().map(digit).collect::<Option<Vec<u8>>>() else { return false };
    // The bits of the last digit that stand for no byte.
    let unused = [0, 0, 0b1111, 0b11][rest];
    digits.last().is_none_or(|last| last & unused == 0)
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(key: &str, header: &'a [u8]) -> Option<Vec<&'a str>> {
        values(key, header).map(Iterator::collect)
    }

    #[test]
    fn a_text_is_one_value_of_visible_ascii() {
        assert_eq!(read("x-a", b" a, b "), Some(vec!["a, b"]));
        assert_eq!(read("x-a", b""), Some(vec![""]));
        for bad in [&b"a\r\nb"[..], b"a\nb", b"a\tb", b"\0", "ä".as_bytes(), b"\xff", b"\x7f"] {
            assert_eq!(read("x-a", bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_binary_value_is_base64_as_any_client_writes_it() {
        for good in ["", "AA", "AA==", "AAA", "AAA=", "AAAA", "+/+/", "CgpncnBjIQ"] {
            assert_eq!(read("x-bin", good.as_bytes()), Some(vec![good]));
        }
        assert_eq!(read("x-bin", b"AA, AAA=,"), Some(vec!["AA", "AAA="]));
        for bad in ["A", "AA=", "A===", "AB", "AAB", "AAAA=", "A-A_", "AA AA", "=", "====", "AA=A"] {
            assert_eq!(read("x-bin", bad.as_bytes()), None, "{bad}");
        }
    }
}
