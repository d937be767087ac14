//! Payloads and protos that are made to cost much. Asserts on counted steps and sizes, never on time.

use prost_reflect::MessageDescriptor;

use crate::fault::Outcome;
use crate::fuzz::random::{Random, compile};
use crate::plan::Plan;
use crate::to_wire::UnknownNames;
use crate::{Codec as _, JsonCodec, Repetition, to_json, to_wire};

const PROTO: &str = r#"
    syntax = "proto3";
    package t;
    import "google/protobuf/struct.proto";
    message M {
      int32 a = 1;
      M child = 2;
      map<string, int32> map = 3;
      repeated Wide list = 4;
      google.protobuf.Value value = 5;
      repeated Long long = 6;
      map<int32, M> children = 7;
    }
    message Wide {
      int64 a = 1; int64 b = 2; int64 c = 3; int64 d = 4; int64 e = 5; int64 f = 6; int64 g = 7; int64 h = 8;
    }
    enum Long { A_NAME_OF_A_VALUE_THAT_IS_MUCH_LONGER_THAN_ITS_NUMBER_WHICH_HAS_BUT_ONE_BYTE = 0; }
"#;
/// The most that NATS accepts as a payload.
const LIMIT: usize = 64 << 20;
/// As small messages as there are.
const MEGABYTE: usize = 1 << 20;

fn message() -> MessageDescriptor {
    compile(PROTO).get_message_by_name("t.M").unwrap()
}

fn json(wire: &[u8], limit: usize) -> Outcome<to_json::Json> {
    to_json::convert(&Plan::of(&message()).unwrap(), None, wire, limit)
}

fn wire(json: &str, limit: usize) -> Outcome<to_wire::Wire> {
    to_wire::convert(&Plan::of(&message()).unwrap(), None, json.as_bytes(), UnknownNames::LeaveOut, limit)
}

/// The content as the field of this tag, with its length.
fn record(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut record = vec![tag];
    prost::encoding::encode_varint(content.len() as u64, &mut record);
    record.extend_from_slice(content);
    record
}

/// Messages in each other, each with these records around the next.
fn nested(levels: usize, before: &[u8], after: &[u8]) -> Vec<u8> {
    (0..levels).fold(Vec::new(), |inner, _| [before, &record(0x12, &inner), after].concat())
}

#[test]
fn records_out_of_sequence_at_every_level_are_read_twice_at_most() {
    for levels in [10, 50, 95] {
        for (before, after) in
            [(&b""[..], &b"\x08\x01"[..]), (b"\x08\x01", b"\x08\x01"), (b"\x12\x00", b"\x08\x01")]
        {
            let steps = json(&nested(levels, before, after), LIMIT).unwrap().steps;
            // At most three records of each message, and one step at the end of all.
            assert!(steps <= 2 * 3 * levels + 2, "{levels} levels: {steps} steps");
        }
    }
}

#[test]
fn parts_of_messages_at_every_level_are_read_twice_at_most() {
    // Each message comes in two parts.
    let part = |inner: Vec<u8>| [record(0x12, &inner), record(0x12, b"\x08\x01")].concat();
    let message = (0..95).fold(Vec::new(), |inner, _| part(inner));
    let steps = json(&message, LIMIT).unwrap().steps;
    assert!(steps <= 2 * 3 * 95 + 2, "{steps} steps");
    // So do values of a map, within one entry.
    let entry = |inner: Vec<u8>| {
        let value = record(0x12, &inner);
        [record(0x3a, &[&b"\x08\x01"[..], &value, &value].concat()), b"\x08\x01".to_vec()].concat()
    };
    let message = (0..12).fold(Vec::new(), |inner, _| entry(inner));
    let (records, steps) = (message.len() / 2, json(&message, LIMIT).unwrap().steps);
    assert!(steps <= 2 * records, "{steps} steps for {records} records");
}

#[test]
fn messages_are_nested_as_deeply_as_decoders_allow() {
    assert!(json(&nested(100, b"", b""), LIMIT).is_ok() && json(&nested(101, b"", b""), LIMIT).is_err());
    assert!(json(&nested(101, b"\x08\x01", b"\x08\x01"), LIMIT).is_err());
    let object = |levels: usize| format!("{}{{}}{}", "{\"child\":".repeat(levels), "}".repeat(levels));
    assert!(wire(&object(100), LIMIT).is_ok() && wire(&object(101), LIMIT).is_err());
    for opening in ["{\"child\":", "[", "{\"value\":[", "{\"list\":[", "{\"children\":{\"1\":"] {
        assert!(wire(&opening.repeat(MEGABYTE / opening.len()), LIMIT).is_err());
        let value = format!("{{\"value\":{}", opening.repeat(MEGABYTE / opening.len()));
        assert!(wire(&value, LIMIT).is_err());
    }
    // An unknown value may be nested at will: it is passed over.
    let half = MEGABYTE / 2;
    let unknown = format!("{{\"unknown\":{}{}}}", "[".repeat(half), "]".repeat(half));
    assert_eq!(wire(&unknown, LIMIT).unwrap().protobuf, b"");
    assert!(json(&b"\xa3\x06".repeat(MEGABYTE / 2), LIMIT).is_err());
}

#[test]
fn zeros_are_written_up_to_the_limit_and_no_further() {
    let short = b"\x22\x00".repeat(1_000);
    let whole = json(&short, LIMIT).unwrap().text.len();
    assert!(whole > 20 * short.len(), "{whole} bytes");
    assert!(json(&short, whole).is_ok() && json(&short, whole - 1).is_err());
    // The end is broken: to be refused as too large, it has not been read.
    for element in [b"\x22\x00".repeat(MEGABYTE / 2), record(0x32, &vec![0; MEGABYTE])] {
        let error = json(&[&element[..], b"\x00"].concat(), MEGABYTE).unwrap_err();
        assert!(format!("{error:?}").contains("is too large as JSON"), "{error:?}");
    }
    let codec = JsonCodec::new(message(), message(), Repetition::Never).with_limit(whole - 1);
    assert_eq!(codec.request(&short).unwrap_err().why(), "is too large as JSON");
    // The other way, a number of two characters becomes twelve bytes.
    let numbers = format!("{{\"value\":[{}0]}}", "0,".repeat(1_000));
    let whole = wire(&numbers, LIMIT).unwrap().protobuf.len();
    assert!(wire(&numbers, whole).is_ok() && wire(&numbers, whole - 1).is_err());
    let numbers = format!("{{\"value\":[{}", "0,".repeat(MEGABYTE / 2));
    let error = wire(&numbers, MEGABYTE).unwrap_err();
    assert!(format!("{error:?}").contains("is too large in protobuf"), "{error:?}");
}

#[test]
fn a_map_of_a_hundred_thousand_keys_takes_a_step_for_each() {
    const KEYS: usize = 100_000;
    let entry = |number: usize| {
        let key = format!("{number:07}");
        record(0x1a, &[&record(0x0a, key.as_bytes())[..], b"\x10\x01"].concat())
    };
    let entries: Vec<u8> = (0..KEYS).flat_map(entry).collect();
    let in_sequence = json(&entries, LIMIT).unwrap();
    assert!(in_sequence.steps <= KEYS + 2, "{} steps", in_sequence.steps);
    // Out of sequence, and every key twice.
    for message in [[&entries[..], b"\x08\x01"].concat(), [&entries[..], &entries].concat()] {
        let json = json(&message, LIMIT).unwrap();
        assert!(json.steps <= 8 * KEYS + 10, "{} steps", json.steps);
        let length = json.text.len().abs_diff(in_sequence.text.len());
        assert!(length < 2, "{length} bytes more or less");
    }
    let members: Vec<String> = (0..KEYS).map(|number| format!("\"{number}\":1")).collect();
    let object = format!("{{\"map\":{{{}}}}}", members.join(","));
    let read = wire(&object, LIMIT).unwrap();
    assert!(read.steps <= KEYS + 3, "{} steps", read.steps);
    let twice = format!("{{\"map\":{{{},\"7\":1}}}}", members.join(","));
    assert!(wire(&twice, LIMIT).is_err());
}

#[test]
fn a_megabyte_of_garbage_takes_no_more_steps_than_it_has_bytes() {
    let mut random = Random::new(5);
    let plan = Plan::of(&message()).unwrap();
    let bytes: Vec<u8> = (0..MEGABYTE).map(|_| random.0.u8(..)).collect();
    let small: Vec<u8> =
        (0..MEGABYTE).map(|_| random.of(b"\x08\x12\x1a\x22\x2a\x32\x3a\x00\x01\x02\x03")).collect();
    let text: String = (0..MEGABYTE).map(|_| char::from(random.of(b"{}[]\",:01aen \\"))).collect();
    for garbage in [&bytes[..], &small, text.as_bytes()] {
        for length in (0..200).chain([1_000, 10_000, MEGABYTE]) {
            for part in [&garbage[..length], &garbage[garbage.len() - length..]] {
                if let Ok(json) = to_json::convert(&plan, None, part, LIMIT) {
                    assert!(json.steps <= 2 * length + 2);
                }
                if let Ok(wire) = to_wire::convert(&plan, None, part, UnknownNames::LeaveOut, LIMIT) {
                    assert!(wire.steps <= length + 2);
                }
            }
        }
    }
}

#[test]
fn protos_that_have_no_plan_fall_back_and_those_that_are_large_are_compiled_without_recursion() {
    let plan = |proto: &str| Plan::of(&compile(proto).get_message_by_name("t.M").unwrap());
    let proto3 = |rest: &str| plan(&format!("syntax = \"proto3\"; package t; {rest}"));
    let any = "import \"google/protobuf/any.proto\"; message N { google.protobuf.Any a = 1; } message M { N n = 1; }";
    assert!(proto3(any).is_err());
    assert!(plan("syntax = \"proto2\"; package t; message M { optional int32 a = 1; }").is_err());
    let fields =
        |count: u32| (1..=count).fold(String::new(), |all, n| format!("{all}optional uint32 f{n} = {n};"));
    assert!(proto3(&format!("message M {{ {} }}", fields(4_097))).is_err());
    let chain: String = (1..3_000).map(|n| format!("message M{n} {{ M{} m = 1; }}", n + 1)).collect();
    let chain = proto3(&format!("message M {{ M1 m = 1; M m0 = 2; }} {chain} message M3000 {{}}")).unwrap();
    assert_eq!(chain.messages.len(), 3_001);
    // More fields than a word has bits.
    let wide = proto3(&format!("message M {{ {} }}", fields(200))).unwrap();
    let object = |last: u32| {
        (1..=200).rev().map(|n| format!("\"f{n}\":{n},")).collect::<String>() + &format!("\"f{last}\":1")
    };
    let read = |members: String| {
        to_wire::convert(&wide, None, format!("{{{members}}}").as_bytes(), UnknownNames::Refuse, LIMIT)
    };
    assert!(read(object(200)).is_err() && read(object(1)).is_err() && read(object(201)).is_ok());
}

#[test]
fn a_type_that_only_has_the_name_of_a_well_known_one_has_no_plan() {
    let file = |fields: &str| {
        let proto = format!("syntax = \"proto3\"; package google.protobuf; message Timestamp {{ {fields} }}");
        let file = protox::file::File::from_source("t.proto", &proto).unwrap();
        let mut pool = prost_reflect::DescriptorPool::new();
        pool.add_file_descriptor_proto(file.file_descriptor_proto().clone()).unwrap();
        Plan::of(&pool.get_message_by_name("google.protobuf.Timestamp").unwrap())
    };
    assert!(file("int64 seconds = 1; int32 nanos = 2;").is_ok());
    for fields in
        ["string seconds = 1; int32 nanos = 2;", "int64 seconds = 1;", "repeated int64 a = 1; int32 b = 2;"]
    {
        assert!(file(fields).is_err(), "{fields}");
    }
}
