//! Texts for headers on NATS, which have to be visible ASCII: some clients drop all headers of a message if one holds
//! anything else. Must not interpret the texts.

use std::borrow::Cow;

/// Replaces characters that cannot be shown.
const HOLE: char = '?';

fn shown(letter: char) -> bool {
    (' '..='~').contains(&letter)
}

/// A text for people: characters other than visible ASCII become question marks.
pub fn visible(text: &str) -> Cow<'_, str> {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && !ends.contains(&Some(b' ')) {
        return text.into();
    }
    // A header neither begins nor ends with a blank.
    text.trim().chars().map(|letter| if shown(letter) { letter } else { HOLE }).collect::<String>().into()
}

/// A text for [`decode`]: the percent sign and everything but visible ASCII are percent-encoded.
pub fn encode(text: &str) -> String {
    let ends = |at: usize| at == 0 || at + 1 == text.len();
    let mut encoded = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b' ' if !ends(at) => encoded.push(' '),
            b'!'..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The same without blanks: two texts never become one, whatever is trimmed.
pub fn word(text: &str) -> String {
    encode(text).replace(' ', "%20")
}

/// Decodes an encoded text. Invalid escapes are kept: the text was written before texts were encoded.
pub fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.get(..2).filter(|_| *first == b'%').and_then(hex);
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    String::from_utf8(bytes).map_or_else(|_| text.into(), Cow::Owned)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_stays_readable() {
        assert_eq!(visible("only 3 of \"Tür\"\r\nleft "), "only 3 of \"T?r\"??left");
        assert_eq!(visible("nothing to do"), "nothing to do");
        assert_eq!(encode("100 % of Tür"), "100 %25 of T%C3%BCr");
        assert_eq!(decode("an old 100 % and %zz, %C3"), "an old 100 % and %zz, %C3");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_visible_ascii_and_comes_back(text in any::<String>()) {
            for written in [encode(&text), visible(&text).into_owned()] {
                prop_assert!(written.bytes().all(|b| (b' '..=b'~').contains(&b)), "{written:?}");
                prop_assert_eq!(written.trim(), &written);
            }
            let encoded = encode(&text);
            prop_assert_eq!(decode(&encoded), text);
        }
    }
}
