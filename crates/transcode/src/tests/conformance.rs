//! Categories of protobuf's conformance suite for proto3 JSON that are about names, syntax, elements and maps. Values are
//! in `cases`.

use crate::fuzz::random::compile;
use crate::{Codec as _, JsonCodec, Repetition};

const PROTO: &str = r#"
    syntax = "proto3";
    package t;
    import "google/protobuf/any.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    enum Kind { FOO = 0; BAR = 1; }
    message Names {
      optional int32 fieldname1 = 1;
      optional int32 field_name2 = 2;
      optional int32 _field_name3 = 3;
      optional int32 field__name4_ = 4;
      optional int32 field0name5 = 5;
      optional int32 field_0_name6 = 6;
      optional int32 fieldName7 = 7;
      optional int32 FieldName8 = 8;
      optional int32 field_Name9 = 9;
      optional int32 Field_Name10 = 10;
      optional int32 FIELD_NAME11 = 11;
      optional int32 FIELD_name12 = 12;
      optional int32 __field_name13 = 13;
      optional int32 __Field_name14 = 14;
      optional int32 field_name17__ = 17;
    }
    message Lists {
      repeated int32 numbers = 1;
      repeated bool bits = 2;
      repeated string texts = 3;
      repeated Names messages = 4;
      repeated Kind kinds = 5;
      repeated google.protobuf.Duration durations = 6;
      repeated google.protobuf.Timestamp times = 7;
      repeated google.protobuf.ListValue lists = 8;
      repeated google.protobuf.Struct structs = 9;
      repeated google.protobuf.BoolValue wrapped = 10;
    }
    message Maps {
      map<bool, bool> b = 1;
      map<int32, int32> i32 = 2;
      map<int64, int64> i64 = 3;
      map<uint32, uint32> u32 = 4;
      map<uint64, uint64> u64 = 5;
      map<sint32, float> s32 = 6;
      map<sint64, double> s64 = 7;
      map<fixed32, string> f32 = 8;
      map<fixed64, bytes> f64 = 9;
      map<sfixed32, Kind> sf32 = 10;
      map<sfixed64, Maps> sf64 = 11;
      map<string, string> text = 12;
    }
    message Choice {
      oneof choice {
        uint32 u32 = 1;
        Choice message = 2;
        string text = 3;
        bytes bytes = 4;
        bool b = 5;
        uint64 u64 = 6;
        float float = 7;
        double double = 8;
        Kind kind = 9;
        google.protobuf.NullValue null = 10;
      }
    }
    message Anything { google.protobuf.Any any = 1; repeated google.protobuf.Any more = 2; }
"#;

fn codec(name: &str) -> JsonCodec {
    let message = compile(PROTO).get_message_by_name(name).unwrap();
    JsonCodec::new(message.clone(), message, Repetition::Never)
}

/// What is written of what was read.
fn again(codec: &JsonCodec, json: &str) -> String {
    let wire = codec.reply(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
    String::from_utf8(codec.request(&wire).unwrap()).unwrap()
}

fn refused(codec: &JsonCodec, texts: &[&str]) {
    for text in texts {
        assert!(codec.reply(text.as_bytes()).is_err(), "{text} was read");
    }
}

#[test]
fn names_in_json_are_those_of_protoc_and_names_of_the_proto_are_read() {
    let codec = codec("t.Names");
    for (proto, json) in [
        ("fieldname1", "fieldname1"),
        ("field_name2", "fieldName2"),
        ("_field_name3", "FieldName3"),
        ("field__name4_", "fieldName4"),
        ("field0name5", "field0name5"),
        ("field_0_name6", "field0Name6"),
        ("fieldName7", "fieldName7"),
        ("FieldName8", "FieldName8"),
        ("field_Name9", "fieldName9"),
        ("Field_Name10", "FieldName10"),
        ("FIELD_NAME11", "FIELDNAME11"),
        ("FIELD_name12", "FIELDName12"),
        ("__field_name13", "FieldName13"),
        ("__Field_name14", "FieldName14"),
        ("field_name17__", "fieldName17"),
    ] {
        let written = format!("{{\"{json}\":1}}");
        assert_eq!(again(&codec, &written), written);
        assert_eq!(again(&codec, &format!("{{\"{proto}\" : 1}}")), written);
        // The same with its first letter escaped.
        let (first, rest) = json.split_at(1);
        let escaped = format!("{{\"\\u{:04x}{rest}\":1}}", first.as_bytes()[0]);
        assert_eq!(again(&codec, &escaped), written);
        let twice = format!("{{\"{json}\":1,\"{proto}\":2}}");
        assert!(codec.reply(twice.as_bytes()).is_err(), "{twice} was read");
    }
    // Names are not matched without case.
    assert_eq!(again(&codec, r#"{"FIELDNAME1":1,"fieldname2":1}"#), "{}");
}

#[test]
fn what_is_no_json_is_refused() {
    let texts = [
        "{\"fieldname1\":1,}",
        "{\"fieldname1\":1 \"fieldName2\":2}",
        "{'fieldname1':1}",
        "{fieldname1:1}",
        "{\"fieldname1\":1} // a comment",
        "{/* a comment */\"fieldname1\":1}",
        "{\"fieldname1\"1}",
        "{\"fieldname1\":}",
        "{\"fieldname1\":-}",
        "{\"fieldname1\":00}",
        "{\"fieldname1\":-01}",
        "{\"fieldname1\":1",
        "{{}}",
        "null",
        "\u{feff}{}",
        "{\"unknown\":[1,]}",
        "{\"unknown\":{\"a\":1,}}",
        "{\"unknown\":NaN}",
        "{\"unknown\":'a'}",
        "{\"unknown\":\"\\U0041\"}",
    ];
    refused(&codec("t.Names"), &texts);
}

#[test]
fn unknown_fields_of_every_kind_are_ignored() {
    for value in ["1", "1.5e3", "\"a\"", "true", "false", "null", "{\"a\":{\"b\":[1]}}", "[]", "[null,{}]"] {
        let text = format!("{{\"unknown\":{value},\"fieldname1\":1,\"unknown\":{value}}}");
        assert_eq!(again(&codec("t.Names"), &text), "{\"fieldname1\":1}");
    }
}

#[test]
fn elements_are_of_the_kind_of_their_list() {
    let lists = codec("t.Lists");
    for (field, good, bad) in [
        ("numbers", "1", &["true", "\"a\"", "{}", "[]", "null", "1.5"][..]),
        ("bits", "true", &["1", "\"true\"", "{}", "null"]),
        ("texts", "\"a\"", &["1", "true", "{}", "[]", "null"]),
        ("messages", "{}", &["1", "\"a\"", "false", "[]", "null"]),
        ("kinds", "\"BAR\"", &["true", "{}", "1.5", "null"]),
        ("durations", "\"1s\"", &["1", "\"1\"", "{}", "null"]),
        ("times", "\"1970-01-01T00:00:00Z\"", &["0", "{}", "null", "\"\""]),
        ("lists", "[1.0]", &["1", "{}", "null"]),
        ("structs", "{\"a\":[]}", &["1", "[]", "\"a\"", "null"]),
        ("wrapped", "false", &["0", "\"false\"", "{}", "null"]),
    ] {
        let text = format!("\"{field}\":[{good},{good}]");
        assert!(again(&lists, &format!("{{{text}}}")).contains(&text), "{text}");
        assert_eq!(lists.reply(format!("{{\"{field}\":null}}").as_bytes()).unwrap(), b"", "{field}");
        refused(&lists, &[&format!("{{\"{field}\":{good}}}"), &format!("{{\"{field}\":[{good},]}}")]);
        for bad in bad {
            let text = format!("{{\"{field}\":[{good},{bad}]}}");
            let error = lists.reply(text.as_bytes()).expect_err(&text);
            assert_eq!(error.path(), format!("{field}[1]"), "{text}: {error}");
        }
    }
}

#[test]
fn keys_of_every_kind_are_texts_which_may_be_escaped() {
    let maps = codec("t.Maps");
    for (text, expected) in [
        (r#""b":{"tr\u0075e":true,"false":false}"#, r#""b":{"true":true,"false":false}"#),
        (r#""i32":{"\u002d1":2,"2147483647":0}"#, r#""i32":{"-1":2,"2147483647":0}"#),
        (r#""i64":{"-9223372036854775808":"1"}"#, ""),
        (r#""u32":{"4294967295":1}"#, ""),
        (r#""u64":{"18446744073709551615":"1"}"#, ""),
        (r#""s32":{"-2147483648":1}"#, r#""s32":{"-2147483648":1.0}"#),
        (r#""s64":{"9223372036854775807":"NaN"}"#, ""),
        (r#""f32":{"0":""}"#, ""),
        (r#""f64":{"1":"AQ"}"#, r#""f64":{"1":"AQ=="}"#),
        (r#""sf32":{"-1":1}"#, r#""sf32":{"-1":"BAR"}"#),
        (r#""text":{"\u0061\n":"","":"b"}"#, r#""text":{"a\n":"","":"b"}"#),
    ] {
        let expected = if expected.is_empty() { text } else { expected };
        let found = again(&maps, &format!("{{{text}}}"));
        assert!(found.contains(expected), "{found}, not {expected}");
    }
    let texts = [
        r#"{"b":{true:true}}"#,
        r#"{"b":{"1":true}}"#,
        r#"{"b":{"True":true}}"#,
        r#"{"i32":{1:1}}"#,
        r#"{"i32":{"":1}}"#,
        r#"{"i32":{" 1":1}}"#,
        r#"{"i32":{"2147483648":1}}"#,
        r#"{"u32":{"-1":1}}"#,
        r#"{"i64":{"1.5":1}}"#,
        r#"{"u64":{"18446744073709551616":1}}"#,
        r#"{"text":{null:""}}"#,
        r#"{"text":{"a":null}}"#,
        r#"{"text":[]}"#,
        r#"{"sf64":{"1":null}}"#,
    ];
    refused(&maps, &texts);
}

#[test]
fn a_zero_of_any_kind_sets_its_oneof() {
    let choice = codec("t.Choice");
    for member in [
        "\"u32\":0",
        "\"message\":{}",
        "\"text\":\"\"",
        "\"bytes\":\"\"",
        "\"b\":false",
        "\"u64\":\"0\"",
        "\"float\":0.0",
        "\"double\":0.0",
        "\"kind\":\"FOO\"",
        "\"null\":null",
    ] {
        let text = format!("{{{member}}}");
        assert_eq!(again(&choice, &text), text);
        let (first, last) = (format!("{{\"text\":null,{member}}}"), format!("{{{member},\"b\":null}}"));
        if !["\"text\":\"\"", "\"b\":false"].contains(&member) {
            assert_eq!([again(&choice, &first), again(&choice, &last)], [text.clone(), text]);
            refused(&choice, &[&format!("{{{member},\"text\":\"a\"}}"), &format!("{{\"b\":true,{member}}}")]);
        }
    }
}

#[test]
fn any_has_the_json_of_its_message_which_the_contract_has_to_have() {
    let any = codec("t.Anything");
    for value in [
        r#"{"@type":"type.googleapis.com/t.Names","fieldname1":1}"#,
        r#"{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.500s"}"#,
        r#"{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"a":1.0}}"#,
        r#"{"@type":"type.googleapis.com/google.protobuf.BoolValue","value":true}"#,
        r#"{"@type":"type.googleapis.com/google.protobuf.Any","value":{"@type":"type.googleapis.com/t.Names"}}"#,
    ] {
        let text = format!("{{\"any\":{value},\"more\":[{value}]}}");
        assert_eq!(again(&any, &text), text);
    }
    let unsorted = r#"{"any":{"fieldname1":1,"@type":"type.googleapis.com/t.Names"}}"#;
    assert!(again(&any, unsorted).contains("\"fieldname1\":1"));
    refused(
        &any,
        &[r#"{"any":{"fieldname1":1}}"#, r#"{"any":{"@type":"t.Nothing"}}"#, r#"{"any":{"@type":1}}"#],
    );
}
