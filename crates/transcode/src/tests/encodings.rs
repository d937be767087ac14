//! Protobuf encodings that are valid but unusual, and such as are broken: what is made of them.

use super::cases::{codec, message};
use crate::{Codec as _, dynamic};

#[test]
fn a_message_in_any_sequence_is_read_as_decoders_do() {
    let one = codec("t.One");
    for (wire, json) in [
        // The last value counts, and so does the last member of a oneof.
        (&b"\x10\x02\x10\x03\x08\x01"[..], r#"{"b":true,"i32":3}"#),
        (b"\xe2\x01\x01a\xe8\x01\x01", r#"{"right":1}"#),
        (b"\xe8\x01\x01\xe2\x01\x01a", r#"{"left":"a"}"#),
        // Parts of a message are merged.
        (b"\xda\x01\x02\x08\x01\xda\x01\x02\x10\x05", r#"{"one":{"b":true,"i32":5}}"#),
        (b"\x92\x01\x02\x10\x01\x92\x01\x02\x08\x01", r#"{"at":"1970-01-01T00:00:01.000000001Z"}"#),
        // The low bits of numbers that are too large, and a boolean of several.
        (b"\x20\x81\x80\x80\x80\x10\x08\x02", r#"{"b":true,"u32":1}"#),
        // An unknown group, and an unknown field.
        (b"\xa3\x06\x08\x01\xa4\x06\x08\x01\xa2\x06\x01x", r#"{"b":true}"#),
    ] {
        assert_eq!(String::from_utf8(one.request(wire).unwrap()).unwrap(), json);
    }
    let many = codec("t.Many");
    // Numbers that are not packed, then packed ones; a key twice; an entry without key and value.
    let json = many
        .request(b"\x08\x01\x0a\x02\x02\x03\x32\x05\x0a\x01a\x10\x01\x32\x05\x0a\x01a\x10\x02\x32\x00")
        .unwrap();
    let json = String::from_utf8(json).unwrap();
    assert!(
        json.starts_with(r#"{"numbers":[1,2,3],"#) && json.contains(r#""byText":{"a":2,"":0}"#),
        "{json}"
    );
}

#[test]
fn a_message_that_is_broken_or_has_no_json_is_refused_with_its_place() {
    let one = codec("t.One");
    for (wire, path) in [
        (&b"\x08"[..], "b"),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "b"),
        (b"\x72\x02a", "text"),
        (b"\x72\x02\xc3\x28", "text"),
        (b"\x70\x01", "text"),
        (b"\x0b\x0c", "b"),
        (b"\x00\x01", ""),
        (b"\x0f", "b"),
        (b"\xa3\x06\x08\x01", ""),
        (b"\xa3\x06\x9c\x06", ""),
        (b"\xda\x01\x03\x72\x01\xff", "one.text"),
        (b"\x92\x01\x02\x10\x7f\x9a\x01\x02\x08\x01\x9a\x01\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "every"),
        (b"\xba\x01\x09\x11\x00\x00\x00\x00\x00\x00\xf0\x7f", "value"),
        // Paths of a mask that would be read as others, or as none.
        (b"\xa2\x01\x05\x0a\x03a_1", "mask"),
        (b"\xa2\x01\x04\x0a\x02a_", "mask"),
        (b"\xa2\x01\x05\x0a\x03a,b", "mask"),
        (b"\xa2\x01\x05\x0a\x00\x0a\x01a", "mask"),
    ] {
        let error = one.request(wire).unwrap_err();
        assert_eq!(error.path(), path, "{wire:?}: {error}");
    }
}

#[test]
fn lengths_of_any_size_are_written_before_what_they_measure() {
    let one = codec("t.One");
    for length in [0, 100, 120, 127, 128, 16_370, 16_384, 2_097_152] {
        for text in ["x".repeat(length), "\\n".repeat(length)] {
            let json = format!(r#"{{"one":{{"one":{{"text":"{text}"}},"i32":7}}}}"#);
            let sorted = format!(r#"{{"one":{{"i32":7,"one":{{"text":"{text}"}}}}}}"#);
            let wire = one.reply(json.as_bytes()).unwrap();
            let library = dynamic::to_wire(&message("t.One"), None, json.as_bytes()).unwrap();
            assert_eq!(wire.len(), library.len());
            assert_eq!(one.request(&wire).unwrap(), sorted.as_bytes(), "{length} characters");
            assert_eq!(one.request(&library).unwrap(), sorted.as_bytes(), "{length} characters");
        }
    }
}
