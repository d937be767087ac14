//! proto3 JSON kind by kind, as protobuf's conformance suite has it: what is read, how it is written, what is refused.

use prost_reflect::MessageDescriptor;

use crate::fuzz::random::compile;
use crate::{Codec as _, CodecError, JsonCodec, Repetition};

const PROTO: &str = r#"
    syntax = "proto3";
    package t;
    import "google/protobuf/duration.proto";
    import "google/protobuf/empty.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    enum Colour { option allow_alias = true; NONE = 0; RED = 1; CRIMSON = 1; BLUE = -2; }
    message One {
      optional bool b = 1;
      optional int32 i32 = 2;
      optional int64 i64 = 3;
      optional uint32 u32 = 4;
      optional uint64 u64 = 5;
      optional sint32 s32 = 6;
      optional sint64 s64 = 7;
      optional fixed32 f32 = 8;
      optional fixed64 f64 = 9;
      optional sfixed32 sf32 = 10;
      optional sfixed64 sf64 = 11;
      optional float float = 12;
      optional double double = 13;
      optional string text = 14;
      optional bytes bytes = 15;
      optional Colour colour = 16;
      optional google.protobuf.NullValue null = 17;
      google.protobuf.Timestamp at = 18;
      google.protobuf.Duration every = 19;
      google.protobuf.FieldMask mask = 20;
      google.protobuf.Empty empty = 21;
      google.protobuf.Struct struct = 22;
      google.protobuf.Value value = 23;
      google.protobuf.ListValue list = 24;
      google.protobuf.Int64Value wrapped = 25;
      google.protobuf.DoubleValue wrapped_double = 26;
      One one = 27;
      oneof choice { string left = 28; uint32 right = 29; google.protobuf.NullValue neither = 30; }
    }
    message Many {
      repeated uint32 numbers = 1;
      repeated string texts = 2;
      repeated Colour colours = 3;
      repeated google.protobuf.Value values = 4;
      repeated google.protobuf.Int64Value wrapped = 5;
      map<string, uint32> by_text = 6;
      map<int32, string> by_number = 7;
      map<bool, Colour> by_bool = 8;
      map<uint64, Many> nested = 9;
    }
"#;

pub(super) fn message(name: &str) -> MessageDescriptor {
    compile(PROTO).get_message_by_name(name).unwrap()
}

pub(super) fn codec(name: &str) -> JsonCodec {
    let message = message(name);
    JsonCodec::new(message.clone(), message, Repetition::Never)
}

/// Reads a member and writes it again; without braces, and only if it is not empty.
fn written(codec: &JsonCodec, member: &str) -> Result<String, CodecError> {
    let json = String::from_utf8(codec.request(&codec.reply(format!("{{{member}}}").as_bytes())?)?).unwrap();
    Ok(json.trim_start_matches('{').strip_suffix('}').unwrap().to_owned())
}

/// Rows of a field, what it is read from, and what is written for that; the same if it is empty, `-` if nothing is.
fn accepts(rows: &[(&str, &str, &str)]) {
    let codec = codec("t.One");
    for (field, value, expected) in rows {
        let expected = match *expected {
            "" => format!("\"{field}\":{value}"),
            "-" => String::new(),
            expected => format!("\"{field}\":{expected}"),
        };
        let member = format!("\"{field}\":{value}");
        assert_eq!(written(&codec, &member).as_deref(), Ok(expected.as_str()), "{member}");
    }
}

fn refuses(rows: &[(&str, &[&str])]) {
    let codec = codec("t.One");
    for (field, values) in rows {
        for value in *values {
            let member = format!("\"{field}\":{value}");
            let found = written(&codec, &member);
            assert!(found.is_err(), "{member} was read as {found:?}");
        }
    }
}

#[test]
fn integers_are_read_in_every_spelling_and_never_rounded() {
    accepts(&[
        ("i32", "-2147483648", ""),
        ("i32", "1.0", "1"),
        ("i32", "1e2", "100"),
        ("i32", "1.5E1", "15"),
        ("i32", "100e-2", "1"),
        ("i32", "-0", "0"),
        ("i32", "\"1.0\"", "1"),
        ("i32", "\"1e2\"", "100"),
        ("i32", "\"01\"", "1"),
        ("i32", "\"+1\"", "1"),
        ("i32", "\"-0\"", "0"),
        ("i32", "\"\\u0031\"", "1"),
        ("i64", "9007199254740993", "\"9007199254740993\""),
        ("i64", "9007199254740993.0", "\"9007199254740993\""),
        ("i64", "\"-9223372036854775808\"", ""),
        ("i64", "9223372036854775807", "\"9223372036854775807\""),
        ("u32", "4294967295", ""),
        ("u32", "\"4294967295\"", "4294967295"),
        ("u64", "18446744073709551615", "\"18446744073709551615\""),
        ("u64", "1.8446744073709551615e19", "\"18446744073709551615\""),
        ("s32", "-1", ""),
        ("s64", "\"-1\"", ""),
        ("f32", "4294967295", ""),
        ("f64", "\"18446744073709551615\"", ""),
        ("sf32", "-2147483648", ""),
        ("sf64", "\"-9223372036854775808\"", ""),
    ]);
    refuses(&[
        (
            "i32",
            &[
                "2147483648",
                "-2147483649",
                "1.5",
                "1e-1",
                "1e10",
                "01",
                "+1",
                "1.",
                ".1",
                "0x1",
                "true",
                "{}",
            ],
        ),
        (
            "i32",
            &["\"\"", "\" 1\"", "\"1 \"", "\"1.\"", "\"one\"", "\"0x1\"", "\"1.5\"", "\"--1\"", "\"NaN\""],
        ),
        ("i64", &["9223372036854775808", "-9223372036854775809", "1e99999999999999999999", "[1]"]),
        ("u32", &["-1", "4294967296", "\"-1\""]),
        ("u64", &["18446744073709551616", "-1", "\"18446744073709551616\"", "1e20"]),
        ("s32", &["2147483648"]),
        ("f32", &["4294967296", "-1"]),
        ("sf64", &["9223372036854775808"]),
    ]);
}

#[test]
fn doubles_are_exact_and_in_their_range() {
    accepts(&[
        ("double", "122.416294033786585", "122.41629403378658"),
        ("double", "5e-324", ""),
        ("double", "1.7976931348623157e308", "1.7976931348623157e+308"),
        ("double", "-0.0", ""),
        ("double", "-0", "-0.0"),
        ("double", "1", "1.0"),
        ("double", "\"1.5\"", "1.5"),
        ("double", "\"NaN\"", ""),
        ("double", "\"-Infinity\"", ""),
        ("float", "3.4028235e38", "3.4028235e+38"),
        ("float", "0.1", ""),
        ("float", "\"Infinity\"", ""),
    ]);
    refuses(&[
        ("double", &["1e400", "\"1e400\"", "NaN", "\"inf\"", "\"nan\"", "\".5\"", "\"5.\"", "\"\"", "true"]),
        ("float", &["3.5e38", "-3.5e38", "\"3.5e38\"", "1e400"]),
    ]);
}

#[test]
fn booleans_strings_and_bytes_have_one_kind_of_value() {
    accepts(&[
        ("b", "true", ""),
        ("b", "false", ""),
        ("text", "\"\"", ""),
        ("text", r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\u0000""#, r#""\"\\/\b\f\n\r\té😀\u0000""#),
        ("text", "\"sixteen letters.\"", ""),
        ("text", "\"seventeen letters\"", ""),
        ("bytes", "\"AQ==\"", ""),
        ("bytes", "\"AQ\"", "\"AQ==\""),
        ("bytes", "\"-_-_\"", "\"+/+/\""),
        ("bytes", "\"-_+/\"", "\"+/+/\""),
        ("bytes", "\"\"", ""),
    ]);
    refuses(&[
        ("b", &["1", "\"true\"", "True", "[]"]),
        (
            "text",
            &["1", "true", r#""\ud83d""#, r#""\ude00""#, r#""\ud83dx""#, r#""\x""#, "\"\n\"", "'a'", "\"a"],
        ),
        ("bytes", &["1", "\"A\"", "\"A===\"", "\"*\"", "\"AQ==AQ==\""]),
    ]);
}

#[test]
fn enums_are_names_or_numbers() {
    accepts(&[
        ("colour", "\"RED\"", ""),
        ("colour", "\"CRIMSON\"", "\"RED\""),
        ("colour", "-2", "\"BLUE\""),
        ("colour", "99", ""),
        ("colour", "1.0", "\"RED\""),
        ("null", "null", ""),
        ("null", "\"NULL_VALUE\"", "null"),
        ("null", "0", "null"),
    ]);
    refuses(&[("colour", &["2147483648", "true", "1.5"]), ("null", &["{}", "false"])]);
}

#[test]
fn unknown_enum_names_are_left_out_of_replies_and_counted_but_refused_in_requests() {
    let many = codec("t.Many");
    let json = br#"{"colours":["RED","GREEN","NONE"],"byBool":{"true":"GREEN","false":"RED"}}"#;
    let reply = many.read_reply(json).unwrap();
    assert_eq!(reply.unknown_names, 2);
    assert_eq!(reply.protobuf, many.reply(br#"{"colours":["RED",0],"byBool":{"false":1}}"#).unwrap());
    assert_eq!(many.reply(br#"{"colours":["GREEN"]}"#).unwrap(), b"");
    let error = many.read_request(json).unwrap_err();
    assert_eq!((error.path(), error.why()), ("colours[1]", "is not a value of its enum"));
    let one = codec("t.One");
    assert_eq!(one.reply(br#"{"colour":"GREEN"}"#).unwrap(), b"");
    assert_eq!(one.read_request(br#"{"colour":7}"#), one.reply(br#"{"colour":7}"#));
    assert!(one.read_request(br#"{"colour":"GREEN"}"#).is_err());
}

#[test]
fn timestamps_are_strict_and_end_in_z() {
    accepts(&[
        ("at", "\"2024-02-29T23:59:59Z\"", ""),
        ("at", "\"0001-01-01T00:00:00Z\"", ""),
        ("at", "\"9999-12-31T23:59:59.999999999Z\"", ""),
        ("at", "\"1969-12-31T23:59:59.5Z\"", "\"1969-12-31T23:59:59.500Z\""),
        ("at", "\"2024-01-01T00:00:00.000001Z\"", ""),
        ("at", "\"2024-01-01T00:30:00+01:30\"", "\"2023-12-31T23:00:00Z\""),
        ("at", "\"2024-01-01T00:00:00-00:00\"", "\"2024-01-01T00:00:00Z\""),
    ]);
    refuses(&[
        (
            "at",
            &[
                "\"2023-02-29T00:00:00Z\"",
                "\"2024-01-01T00:00:60Z\"",
                "\"2024-01-01T24:00:00Z\"",
                "0",
                "\"\"",
            ],
        ),
        ("at", &["\"2024-01-01t00:00:00Z\"", "\"2024-01-01T00:00:00z\"", "\"2024-01-01 00:00:00Z\""]),
        (
            "at",
            &["\"2024-01-01T00:00:00.1234567891Z\"", "\"2024-01-01T00:00:00.Z\"", "\"2024-01-01T00:00:00\""],
        ),
        (
            "at",
            &["\"0000-12-31T23:59:59Z\"", "\"0001-01-01T00:00:00+00:01\"", "\"9999-12-31T23:59:59-00:01\""],
        ),
    ]);
}

#[test]
fn durations_are_seconds() {
    accepts(&[
        ("every", "\"1s\"", ""),
        ("every", "\"-0.5s\"", "\"-0.500s\""),
        ("every", "\"-1.000000001s\"", ""),
        ("every", "\"315576000000s\"", ""),
        ("every", "\"0s\"", ""),
    ]);
    let refused = ["1", "\"1\"", "\"1m\"", "\"+1s\"", "\"1.s\"", "\".5s\"", "\"1e2s\"", "\"315576000001s\""];
    refuses(&[("every", &refused), ("every", &["\"s\"", "\"-s\"", "\"1.0000000001s\"", "\"--1s\""])]);
}

#[test]
fn other_well_known_types_have_their_own_forms() {
    accepts(&[
        ("mask", "\"fooBar,a.b\"", ""),
        ("mask", "\"\"", ""),
        ("empty", "{}", ""),
        ("empty", "{\"a\":[1]}", "{}"),
        ("struct", "{\"a\":null,\"b\":{\"c\":[1.5,\"x\",true,[]]}}", ""),
        ("struct", "{}", ""),
        ("value", "null", ""),
        ("value", "1e2", "100.0"),
        ("value", "\"x\"", ""),
        ("value", "{\"a\":{}}", ""),
        ("list", "[null,[1.0],{\"a\":[]}]", ""),
        ("wrapped", "0", "\"0\""),
        ("wrapped", "null", "-"),
        ("wrappedDouble", "\"NaN\"", ""),
        ("neither", "null", ""),
        ("one", "{\"one\":{}}", ""),
    ]);
    refuses(&[
        ("mask", &["\"foo_bar\"", "1", "[]"]),
        ("empty", &["[]", "1"]),
        ("struct", &["[]", "{\"a\":1,\"a\":2}", "{\"a\":1e400}", "{\"a\":}"]),
        ("value", &["1e400", "nul", "[1,]", "+1"]),
        ("list", &["{}", "[1,2"]),
        ("wrapped", &["{\"value\":1}", "\"\""]),
        ("one", &["[]", "1", "\"\""]),
    ]);
    // Presence is of the message, not of its value.
    assert_eq!(codec("t.One").reply(br#"{"wrapped":0}"#).unwrap(), b"\xca\x01\x00");
}

#[test]
fn null_is_absent_for_fields_and_an_error_for_elements() {
    let one = codec("t.One");
    let nulls =
        ["b", "i32", "u64", "double", "text", "bytes", "colour", "at", "mask", "struct", "one", "left"];
    let all: Vec<String> = nulls.iter().map(|field| format!("\"{field}\":null")).collect();
    assert_eq!(one.reply(format!("{{{}}}", all.join(",")).as_bytes()).unwrap(), b"");
    let many = codec("t.Many");
    let absent = br#"{"numbers":null,"texts":null,"byText":null,"values":null,"nested":null}"#;
    assert_eq!(many.reply(absent).unwrap(), b"");
    for (json, path) in [
        (r#"{"numbers":[1,null]}"#, "numbers[1]"),
        (r#"{"texts":[null]}"#, "texts[0]"),
        (r#"{"colours":[null]}"#, "colours[0]"),
        (r#"{"wrapped":[null]}"#, "wrapped[0]"),
        (r#"{"byText":{"a":null}}"#, "byText.a"),
        (r#"{"nested":{"1":{"nested":{"2":null}}}}"#, "nested.1.nested.2"),
    ] {
        assert_eq!(many.reply(json.as_bytes()).unwrap_err().path(), path, "{json}");
    }
    assert_eq!(many.reply(br#"{"values":[null]}"#).unwrap(), b"\x22\x02\x08\x00");
}

#[test]
fn a_field_a_oneof_and_a_key_occur_once() {
    for (message, json, path) in [
        ("t.One", r#"{"i32":1,"i32":1}"#, "i32"),
        ("t.One", r#"{"i32":null,"i32":1}"#, "i32"),
        ("t.One", r#"{"wrappedDouble":1,"wrapped_double":1}"#, "wrapped_double"),
        ("t.One", r#"{"left":"a","right":1}"#, "right"),
        ("t.One", r#"{"neither":null,"right":1}"#, "right"),
        ("t.Many", r#"{"byText":{"a":1,"\u0061":2}}"#, "byText.a"),
        ("t.Many", r#"{"byNumber":{"1":"a","01":"b"}}"#, "byNumber.01"),
        ("t.Many", r#"{"byBool":{"true":1,"true":1}}"#, "byBool.true"),
    ] {
        let error = codec(message).reply(json.as_bytes()).unwrap_err();
        assert_eq!(error.path(), path, "{json}: {error}");
    }
    assert_eq!(written(&codec("t.One"), r#""left":null,"right":1"#).unwrap(), r#""right":1"#);
}
