//! Where plans differ from the library's dynamic messages on purpose. The whole list; what is not here is a bug.

/// JSON that plans refuse and dynamic messages take: plans' reason, and what dynamic messages make of it.
pub(super) const REFUSED_JSON: [(&str, &str); 6] = [
    ("occurs twice", "of a field or map key the last value; keys are the same however they are spelled"),
    ("is out of the range of its field", "the text `1e400` is infinite"),
    ("expected a number", "texts `inf`, `nan`, `.5` and `5.` are numbers"),
    ("expected a time as in RFC 3339", "second 60 becomes 59, a tenth digit of fraction is cut off"),
    ("expected seconds", "a tenth digit of fraction is cut off"),
    ("expected a whole number", "2^64 becomes 2^64 - 1"),
];

/// JSON that plans take and dynamic messages refuse: the library's reason, and what plans make of it.
pub(super) const TAKEN_JSON: [(&str, &str); 6] = [
    ("invalid digit found in string", "texts `1.0` and `1e2` are integers, texts `-0` zero"),
    ("invalid base64", "the two alphabets may be mixed"),
    ("invalid type: floating point", "an enum number may be spelled 1.0"),
    ("invalid type: integer", "NullValue may be a number, as any enum"),
    ("float value out of range", "a float rounds to the largest one, which is how that is written"),
    ("unexpected value in map", "unknown fields of Empty are ignored"),
];

/// JSON that both take, and read as different values.
pub(super) const DIFFERENT_JSON: [(&str, &str); 1] = [(
    "9007199254740993.0",
    "dynamic messages read integers with a point as doubles; plans read every digit",
)];

/// Messages that plans refuse and dynamic messages take: plans' reason.
pub(super) const REFUSED_WIRE: [(&str, &str); 6] = [
    ("is a duration out of range", "the value is normalised"),
    ("has seconds and nanoseconds of different signs", "the value is normalised"),
    ("has nanoseconds outside of 0 to 999999999", "the value is normalised"),
    ("has another wire type", "the wire type of a map's records is not looked at"),
    ("has an invalid wire type", "the same, of groups"),
    ("has a path with an underscore", "an underscore at the end of a path is lost"),
];

/// Messages that plans take and dynamic messages refuse: the library's reason.
pub(super) const TAKEN_WIRE: [(&str, &str); 3] = [
    ("invalid string value", "values that later ones replace are passed over: strings"),
    ("buffer underflow", "and messages of a oneof"),
    ("invalid wire type", "the same"),
];

/// Texts that plans write of a message where dynamic messages write `null`, in wrappers of floating-point numbers.
pub(super) const DIFFERENT_WIRE: [&str; 3] = ["\"NaN\"", "\"Infinity\"", "\"-Infinity\""];

/// Whether a reason is on a list.
pub(super) fn is_listed(list: &[(&str, &str)], reason: &str) -> bool {
    list.iter().any(|(listed, _)| reason.starts_with(listed))
}
