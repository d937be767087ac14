//! Replies whose payload is the value of one field: by plans, and by dynamic messages where there is no plan.

use prost_reflect::MessageDescriptor;

use super::cases::message;
use crate::fuzz::random::compile;
use crate::{BodyError, Codec as _, CodecError, JsonCodec, Repetition};

/// The same fields twice: a message with `Any` has no plan.
const PROTO: &str = r#"
    syntax = "proto3";
    package t;
    import "google/protobuf/any.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    enum Colour { NONE = 0; RED = 1; }
    message Item { string name = 1; uint32 count = 2; }
    message Planned {
      repeated Item items = 1;
      Item one_item = 2;
      map<string, uint32> by_name = 3;
      string text = 4;
      uint32 number = 5;
      Colour colour = 6;
      google.protobuf.Timestamp at = 7;
      google.protobuf.StringValue wrapped = 8;
      google.protobuf.Value value = 9;
      google.protobuf.NullValue null = 10;
      oneof choice { string left = 11; uint32 right = 12; }
      bytes f = 13 [json_name = "odd\"},{"];
      string other = 14;
    }
    message Dynamic {
      repeated Item items = 1;
      Item one_item = 2;
      map<string, uint32> by_name = 3;
      string text = 4;
      uint32 number = 5;
      Colour colour = 6;
      google.protobuf.Timestamp at = 7;
      google.protobuf.StringValue wrapped = 8;
      google.protobuf.Value value = 9;
      google.protobuf.NullValue null = 10;
      oneof choice { string left = 11; uint32 right = 12; }
      bytes f = 13 [json_name = "odd\"},{"];
      string other = 14;
      google.protobuf.Any any = 15;
    }
"#;

fn codecs() -> [JsonCodec; 2] {
    let pool = compile(PROTO);
    ["t.Planned", "t.Dynamic"].map(|name| {
        let reply: MessageDescriptor = pool.get_message_by_name(name).unwrap();
        JsonCodec::new(reply.clone(), reply, Repetition::Never)
    })
}

/// What both codecs make of a payload; they have to be of one opinion, and to name the same place.
fn reply(field: &str, payload: &str) -> Result<Vec<u8>, CodecError> {
    let [planned, dynamic] =
        codecs().map(|codec| codec.with_response_body(field).unwrap().reply(payload.as_bytes()));
    match (&planned, &dynamic) {
        (Ok(planned), Ok(dynamic)) => assert_eq!(planned, dynamic, "{field}: {payload}"),
        (Err(planned), Err(dynamic)) => assert_eq!(planned.path(), dynamic.path(), "{field}: {payload}"),
        _ => panic!("{field}: {payload}: {planned:?}, {dynamic:?}"),
    }
    planned
}

/// What the payload is as a member of the whole message.
fn member(name: &str, payload: &str) -> Vec<u8> {
    codecs()[0].reply(format!("{{{name}:{payload}}}").as_bytes()).unwrap()
}

#[test]
fn a_reply_may_be_the_value_of_one_field() {
    for (field, name, payload) in [
        ("items", "\"items\"", r#"[{"name":"a"},{"count":2,"new":[1]},{}]"#),
        ("items", "\"items\"", "[]"),
        ("one_item", "\"oneItem\"", " {\"name\" : \"a\"}\n"),
        ("by_name", "\"byName\"", r#"{"a":1}"#),
        ("text", "\"text\"", r#""\u0022},{\"other\":\"""#),
        ("number", "\"number\"", "\"7\""),
        ("number", "\"number\"", "0"),
        ("colour", "\"colour\"", "\"RED\""),
        ("at", "\"at\"", "\"2026-11-29T12:00:00.5Z\""),
        ("wrapped", "\"wrapped\"", "\"\""),
        ("value", "\"value\"", r#"{"a":[null,1.5]}"#),
        ("right", "\"right\"", "0"),
        ("f", r#""odd\"},{""#, "\"AQ==\""),
    ] {
        assert_eq!(reply(field, payload).unwrap(), member(name, payload), "{field}: {payload}");
    }
    // Requests are the whole message.
    let [planned, _] = codecs();
    let codec = planned.with_response_body("number").unwrap();
    let request = codec.request(b"\x28\x07").unwrap();
    assert!(String::from_utf8(request).unwrap().contains(r#""number":7"#));
}

#[test]
fn null_leaves_a_field_unset_unless_it_is_its_value() {
    for field in ["items", "one_item", "by_name", "text", "number", "colour", "at", "wrapped", "left", "f"] {
        assert_eq!(reply(field, "null").unwrap(), b"", "{field}");
    }
    assert_eq!(reply("value", "null").unwrap(), member("\"value\"", "null"));
    assert_eq!(reply("value", "null").unwrap(), b"\x4a\x02\x08\x00");
    assert_eq!(reply("items", "[null]").unwrap_err().path(), "items[0]");
}

#[test]
fn a_payload_is_exactly_one_value() {
    for payload in [
        "",
        " ",
        "1,\"other\":\"x\"",
        "1},{",
        "1}",
        "1 2",
        "1,",
        ",1",
        "1:2",
        "nul",
        "null null",
        "1]",
        "\u{feff}1",
        "1\0",
        "/**/1",
    ] {
        assert_eq!(reply("number", payload).unwrap_err().path(), "", "{payload:?}");
    }
    for payload in ["\"x\",\"other\":\"y\"", "\"text\":\"x\"", "\"x\"}", "\"x", "\"\\\"", "x", "\"x\"\"y\""] {
        assert_eq!(reply("text", payload).unwrap_err().path(), "", "{payload:?}");
    }
    for codec in codecs() {
        let error = codec.with_response_body("text").unwrap().reply(b"\"\xff\"").unwrap_err();
        assert_eq!(error.path(), "");
    }
}

#[test]
fn an_error_in_a_reply_of_one_field_has_the_fields_path() {
    for (field, payload, path) in [
        ("items", r#"[{},{"count":-1}]"#, "items[1].count"),
        ("items", r#"{"items":[]}"#, "items"),
        ("one_item", r#"{"count":"many"}"#, "one_item.count"),
        ("one_item", r#"{"one_item":{}}{"#, ""),
        ("by_name", r#"{"a":{}}"#, "by_name.a"),
        ("number", "{\"number\":1}", "number"),
        ("number", "4294967296", "number"),
        ("at", "\"yesterday\"", "at"),
        ("f", "\"*\"", "f"),
    ] {
        let error = reply(field, payload).unwrap_err();
        assert_eq!(error.path(), path, "{field}: {payload}: {error}");
    }
}

#[test]
fn unknown_enum_names_and_limits_are_of_the_value_as_of_a_whole_message() {
    let [planned, dynamic] = codecs();
    let colour = planned.clone().with_response_body("colour").unwrap();
    let read = colour.read_reply(b"\"GREEN\"").unwrap();
    assert_eq!((read.protobuf.as_slice(), read.unknown_names), (&b""[..], 1));
    for codec in [planned, dynamic] {
        let text = codec.with_limit(100).with_response_body("text").unwrap();
        assert!(text.reply(format!("\"{}\"", "x".repeat(98)).as_bytes()).is_ok());
        assert!(text.reply(format!("\"{}\"", "x".repeat(99)).as_bytes()).is_err());
    }
}

#[test]
fn a_response_body_has_to_be_a_field_of_the_reply() {
    let codec = super::cases::codec("t.One");
    let unknown = codec.clone().with_response_body("items").unwrap_err();
    assert_eq!(unknown.to_string(), r#"the reply t.One has no field "items""#);
    let note = message("t.One").get_field_by_name("wrapped").unwrap().kind();
    let note = note.as_message().unwrap().clone();
    let known = JsonCodec::new(message("t.One"), note, Repetition::Never).with_response_body("value");
    assert!(matches!(known, Err(BodyError::WellKnownType { part: "reply", .. })), "{known:?}");
}
