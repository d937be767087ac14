//! The scanner's grammar against that of the JSON library: what one takes as JSON, the other takes.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::Value as Json;

use crate::fault::Kind;
use crate::fuzz::random::{Random, compile};
use crate::plan::Plan;
use crate::to_wire::{UnknownNames, convert};

const TOKENS: [&str; 46] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\"a\"",
    "\"b\":",
    "1",
    "0",
    "-",
    ".",
    "e",
    "E+",
    "1.5",
    "-0",
    "01",
    "true",
    "false",
    "null",
    "nul",
    " ",
    "\n",
    "\t",
    "\u{b}",
    "\u{a0}",
    "\\",
    "\\n",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\\ud83d",
    "\\udead",
    "\\u12",
    "é",
    "\u{1}",
    "\u{7f}",
    "\"\\q\"",
    "1e999",
    "1e-999",
    "123456789012345678901234567890",
    "{}",
    "[]",
    "\"x\":{\"y\":[1,2]}",
    "\0",
    "/",
];
const START: &str = r#"{"k":[1,-2.5e3,"x\u0041",{"a":null,"b":true}],"a":"q"}"#;

#[test]
fn the_scanner_and_the_json_library_take_the_same_texts() {
    let proto = "syntax = \"proto3\"; package t; import \"google/protobuf/struct.proto\"; \
                 message M { google.protobuf.Value v = 1; }";
    let plan = Plan::of(&compile(proto).get_message_by_name("t.M").unwrap()).unwrap();
    let mut random = Random::new(3);
    let mut taken = 0;
    for _ in 0..20_000 {
        let text = text(&mut random);
        let read = |name: &str| {
            convert(&plan, None, format!("{{\"{name}\":{text}}}").as_bytes(), UnknownNames::Refuse, 1 << 20)
        };
        let skipped = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(&format!("{{\"zzz\":{text}}}"));
        assert_eq!(read("zzz").is_ok(), skipped.is_ok(), "skipped: {text:?}");
        taken += u32::from(skipped.is_ok());
        let value = serde_json::from_str::<BTreeMap<String, Json>>(&format!("{{\"v\":{text}}}"));
        match (read("v"), value) {
            (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
            // Keys that occur twice are JSON, and refused.
            (Err(fault), Ok(_)) => assert_eq!(fault.kind, Kind::Data, "read: {text:?}: {fault:?}"),
            (Ok(_), Err(error)) => panic!("read: {text:?}: {error}"),
        }
    }
    assert!(taken > 1_000, "only {taken} texts were JSON");
}

/// A text that is JSON, or nearly so.
fn text(random: &mut Random) -> String {
    let mut text = if random.once_in(3) { String::new() } else { START.to_owned() };
    for _ in 0..random.0.usize(1..5) {
        let mut at = random.0.usize(0..=text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let token = random.of(&TOKENS);
        if random.0.bool() {
            text.insert_str(at, token);
        } else if at < text.len() && text.is_char_boundary(at + 1) {
            text.replace_range(at..=at, if random.0.bool() { token } else { "" });
        }
    }
    text
}
