//! Where plans differ from the library's dynamic messages on purpose. The whole list; what is not here is a bug.

use std::collections::HashSet;

use prost_reflect::{Kind, MessageDescriptor};

use crate::record::{Range, Records};

/// JSON that plans refuse and dynamic messages take: plans' reason, and what dynamic messages make of it.
pub(crate) const REFUSED_JSON: [(&str, &str); 6] = [
    ("occurs twice", "of a field or map key the last value; keys are the same however they are spelled"),
    ("is out of the range of its field", "the text `1e400` is infinite"),
    ("expected a number", "texts `inf`, `nan`, `.5` and `5.` are numbers"),
    ("expected a time as in RFC 3339", "second 60 becomes 59, a tenth digit of fraction is cut off"),
    ("expected seconds", "a tenth digit of fraction is cut off"),
    ("expected a whole number", "2^64 becomes 2^64 - 1"),
];

/// JSON that plans take and dynamic messages refuse: the library's reason, and what plans make of it.
pub(crate) const TAKEN_JSON: [(&str, &str); 6] = [
    ("invalid digit found in string", "texts `1.0` and `1e2` are integers, texts `-0` zero"),
    ("invalid base64", "the two alphabets may be mixed"),
    ("invalid type: floating point", "an enum number may be spelled 1.0"),
    ("invalid type: integer", "NullValue may be a number, as any enum"),
    ("float value out of range", "a float rounds to the largest one, which is how that is written"),
    ("unexpected value in map", "unknown fields of Empty are ignored"),
];

/// Whether both take this JSON and may read it as different values: dynamic messages read integers with a point or an
/// exponent as doubles, which have sixteen digits; plans read every digit.
pub(crate) fn is_read_differently(json: &[u8]) -> bool {
    let is_of_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    json.split(|byte| !is_of_number(byte)).any(|number| {
        number.iter().filter(|byte| byte.is_ascii_digit()).count() > 15
            && number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
    })
}

/// Messages that plans refuse and dynamic messages take: plans' reason.
pub(crate) const REFUSED_WIRE: [(&str, &str); 8] = [
    ("is a duration out of range", "the value is normalised"),
    ("has seconds and nanoseconds of different signs", "the value is normalised"),
    ("has nanoseconds outside of 0 to 999999999", "the value is normalised"),
    ("has another wire type", "the wire type of a map's records is not looked at"),
    ("has an invalid wire type", "the same, of groups"),
    ("has a path with an underscore", "an underscore at the end of a path is lost"),
    ("has a path with a comma", "one path becomes two"),
    ("has a path that is empty", "it is lost"),
];

/// Whether plans may take a message that dynamic messages cannot decode: values that later ones replace are passed over,
/// whatever they contain. Such are earlier ones of a field without parts, of a oneof, or of a key.
pub(crate) fn has_replaced(message: &MessageDescriptor, wire: &[u8]) -> bool {
    let mut records = Records::new(wire, Range { from: 0, to: wire.len() });
    let mut seen = HashSet::new();
    while !records.is_at_end() {
        let Ok(tag) = records.tag() else { return false };
        let Some(field) = message.get_field(tag >> 3) else {
            if records.skip(tag, u32::MAX).is_err() {
                return false;
            }
            continue;
        };
        let Ok(value) = records.value(tag & 7) else { return false };
        let place = match field.containing_oneof() {
            Some(oneof) => oneof.full_name().to_owned(),
            None => field.full_name().to_owned(),
        };
        // Keys are not compared: two entries may be of one.
        if !field.is_list() && !seen.insert(place) {
            return true;
        }
        if let (2, Kind::Message(inner)) = (tag & 7, field.kind())
            && has_replaced(&inner, &wire[value.range.from..value.range.to])
        {
            return true;
        }
    }
    false
}

/// Texts that plans write of a message where dynamic messages write `null`, in wrappers of floating-point numbers.
pub(crate) const DIFFERENT_WIRE: [&str; 3] = ["\"NaN\"", "\"Infinity\"", "\"-Infinity\""];

/// Whether a reason is on a list.
pub(crate) fn is_listed(list: &[(&str, &str)], reason: &str) -> bool {
    list.iter().any(|(listed, _)| reason.starts_with(listed))
}
