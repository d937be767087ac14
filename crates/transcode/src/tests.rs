//! Both codecs on messages of a shop that has every kind of field.

mod cases;
mod conformance;
mod difference;
mod encodings;
mod grammar;
mod hostile;
mod response;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::{BodyError, Codec, CodecError, JsonCodec, ProtobufCodec, Repetition};

const SHOP: &str = r#"
    syntax = "proto3";
    package acme.shop;
    import "google/protobuf/duration.proto";
    import "google/protobuf/empty.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";

    message Basket {
      enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; }
      message Line { string product_id = 1; uint32 quantity = 2; }
      repeated Line lines = 1;
      Colour colour = 2;
      string request_id = 3;
      optional uint32 limit = 4;
      map<string, Line> gifts = 5;
      Line first = 6;
      oneof pay { string card = 7; int64 cents = 8; }
      google.protobuf.Timestamp placed_at = 9;
      google.protobuf.Duration every = 10;
      google.protobuf.StringValue note = 11;
      google.protobuf.Struct extra = 12;
      google.protobuf.FieldMask mask = 13;
      double weight = 14;
      bytes image = 15;
      repeated Colour colours = 16;
      google.protobuf.Empty nothing = 17;
      int64 total = 18;
      optional string key = 19;
    }
"#;

struct Sources;

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "shop.proto" {
            File::from_source(name, SHOP)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

fn message(name: &str) -> MessageDescriptor {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("shop.proto").unwrap();
    let pool = DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap();
    pool.get_message_by_name(name).unwrap()
}

fn json() -> JsonCodec {
    let basket = message("acme.shop.Basket");
    JsonCodec::new(basket.clone(), basket, Repetition::Always)
}

fn protobuf() -> ProtobufCodec {
    let basket = message("acme.shop.Basket");
    ProtobufCodec::new(basket.clone(), basket, Repetition::Always)
}

/// The protobuf encoding of a basket in JSON.
fn encoded(basket: &str) -> Vec<u8> {
    json().reply(basket.as_bytes()).unwrap()
}

fn written(codec: &impl Codec, basket: &str) -> String {
    String::from_utf8(codec.request(&encoded(basket)).unwrap()).unwrap()
}

fn refused(payload: &str) -> CodecError {
    json().reply(payload.as_bytes()).unwrap_err()
}

#[test]
fn an_empty_message_is_written_with_every_field_that_has_no_presence() {
    assert_eq!(
        written(&json(), "{}"),
        r#"{"lines":[],"colour":"COLOUR_UNSPECIFIED","requestId":"","gifts":{},"weight":0.0,"image":"","colours":[],"total":"0"}"#
    );
}

#[test]
fn every_kind_of_field_survives_both_ways() {
    let basket = concat!(
        r#"{"lines":[{"productId":"lamp","quantity":2},{"productId":"","quantity":0}],"colour":"COLOUR_RED","#,
        r#""requestId":"r-1","limit":0,"gifts":{"a":{"productId":"pen","quantity":1}},"first":{"productId":"lamp","#,
        r#""quantity":2},"cents":"9007199254740993","placedAt":"2026-11-28T21:00:00.500Z","every":"1.500s","note":"","#,
        r#""extra":{"a":[1.0,null,"x"]},"mask":"lines,requestId","weight":0.1,"image":"AP8=","#,
        r#""colours":["COLOUR_RED",7],"nothing":{},"total":"-1"}"#
    );
    assert_eq!(written(&json(), basket), basket);
}

#[test]
fn doubles_are_exact() {
    // The default reader of the JSON library is off by one unit in the last place here.
    for text in ["0.3", "122.416294033786585", "5e-324", "1.7976931348623157e308"] {
        let bytes = encoded(&format!("{{\"weight\":{text}}}"));
        let basket = DynamicMessage::decode(message("acme.shop.Basket"), bytes.as_slice()).unwrap();
        let weight = basket.get_field_by_name("weight").unwrap().as_f64().unwrap();
        assert_eq!(weight.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
    }
}

#[test]
fn names_of_the_proto_are_read_and_unknown_fields_ignored() {
    let reply = r#"{"request_id":"r-1","invented":{"a":[1e9,null]},"colour":"COLOUR_INVENTED"}"#;
    assert_eq!(encoded(reply), b"\x1a\x03r-1");
}

#[test]
fn an_error_names_its_place() {
    for (payload, path) in [
        (r#"{"lines":[{},{},{},{"quantity":-1}]}"#, "lines[3].quantity"),
        (r#"{"lines":{}}"#, "lines"),
        (r#"{"gifts":{"a":{"quantity":"two"}}}"#, "gifts.a.quantity"),
        (r#"{"placedAt":"yesterday"}"#, "placedAt"),
        (r#"{"request_id":7}"#, "request_id"),
        ("[]", ""),
        ("", ""),
        ("{", ""),
        ("{} {}", ""),
    ] {
        assert_eq!(refused(payload).path(), path, "{payload}: {}", refused(payload));
    }
    assert_eq!(json().reply(b"\xff").unwrap_err().path(), "");
}

#[test]
fn an_error_repeats_little_of_a_payload_and_breaks_no_line() {
    for text in [r"\u0001\u001b[2J\n", &"x".repeat(1 << 20)] {
        let error = refused(&format!(r#"{{"gifts":{{"{text}":{{"quantity":"{text}"}}}}}}"#));
        assert!(error.path().starts_with("gifts."), "{error}");
        assert!(!error.to_string().contains(char::is_control), "{error}");
        assert!(error.to_string().len() < 1_100);
    }
}

#[test]
fn a_request_that_has_no_json_is_refused_with_its_place() {
    // `first` is fine; `placed_at` has the seconds of the year 10000.
    let mut basket = DynamicMessage::new(message("acme.shop.Basket"));
    let at = basket.get_field_by_name_mut("placed_at").unwrap().as_message_mut().unwrap();
    at.set_field_by_name("seconds", prost_reflect::Value::I64(253_402_300_800));
    let error = json().request(&basket.encode_to_vec()).unwrap_err();
    assert_eq!(error.path(), "placed_at", "{error}");
    assert_eq!(json().request(b"\xff").unwrap_err().path(), "");
}

#[test]
fn a_body_is_one_field_alone() {
    let body = |field| json().with_body(field).unwrap();
    let basket =
        r#"{"lines":[{"productId":"lamp"}],"first":{},"requestId":"\"r\"","gifts":{"a":{}},"colour":1}"#;
    assert_eq!(written(&body("lines"), basket), r#"[{"productId":"lamp","quantity":0}]"#);
    assert_eq!(written(&body("first"), basket), r#"{"productId":"","quantity":0}"#);
    assert_eq!(written(&body("gifts"), basket), r#"{"a":{"productId":"","quantity":0}}"#);
    assert_eq!(written(&body("request_id"), basket), r#""\"r\"""#);
    assert_eq!(written(&body("colour"), basket), r#""COLOUR_RED""#);
}

#[test]
fn a_body_that_is_unset_is_its_default_or_null() {
    let body = |field| written(&json().with_body(field).unwrap(), "{}");
    let found = ["lines", "gifts", "request_id", "total", "first", "limit", "card", "note"].map(body);
    assert_eq!(found, ["[]", "{}", "\"\"", "\"0\"", "null", "null", "null", "null"]);
}

#[test]
fn a_body_has_to_be_a_field_of_the_request() {
    let unknown = json().with_body("items").unwrap_err();
    assert_eq!(unknown.to_string(), r#"the request acme.shop.Basket has no field "items""#);
    let note = message("google.protobuf.StringValue");
    let known = JsonCodec::new(note.clone(), note, Repetition::Never).with_body("value").unwrap_err();
    assert!(matches!(known, BodyError::WellKnownType { .. }), "{known}");
}

#[test]
fn a_well_known_type_may_be_the_whole_message() {
    let (note, empty) = (message("google.protobuf.StringValue"), message("google.protobuf.Empty"));
    let codec = JsonCodec::new(note, empty, Repetition::Never);
    assert_eq!(codec.request(b"\x0a\x01x").unwrap(), b"\"x\"");
    assert_eq!(codec.reply(b"{}").unwrap(), b"");
}

#[test]
fn the_protobuf_encoding_passes_unchanged() {
    let basket = encoded(r#"{"requestId":"r-1","lines":[{"quantity":1}]}"#);
    // Field 100, which is unknown.
    let basket = [basket.as_slice(), b"\xa2\x06\x01x"].concat();
    assert_eq!(protobuf().request(&basket).unwrap(), basket);
    assert_eq!(protobuf().reply(&basket).unwrap(), basket);
    // A truncated field, and a string that is not UTF-8.
    for broken in [&b"\x1a\x09r"[..], b"\x1a\x01\xff"] {
        assert!(protobuf().request(broken).is_err() && protobuf().reply(broken).is_err());
    }
}

#[test]
fn a_request_may_be_sent_again_as_its_rpc_says_and_only_under_its_id_where_it_can_have_one() {
    let basket = message("acme.shop.Basket");
    let id = basket.get_field_by_name("request_id").unwrap();
    let repeatable = |repetition: &Repetition, request: &[u8]| {
        let json = JsonCodec::new(basket.clone(), basket.clone(), repetition.clone());
        let protobuf = ProtobufCodec::new(basket.clone(), basket.clone(), repetition.clone());
        assert_eq!(json.repeatable(request), protobuf.repeatable(request));
        json.repeatable(request)
    };
    let (named, nameless) = (encoded(r#"{"requestId":"r-1"}"#), encoded(r#"{"total":"1"}"#));
    let keyed = Repetition::Keyed(id);
    assert!(repeatable(&keyed, &named) && !repeatable(&keyed, &nameless) && !repeatable(&keyed, b""));
    let present = Repetition::Keyed(basket.get_field_by_name("key").unwrap());
    assert!(
        !repeatable(&present, &encoded(r#"{"key":""}"#)) && repeatable(&present, &encoded(r#"{"key":"x"}"#))
    );
    assert!(repeatable(&Repetition::Always, b"") && !repeatable(&Repetition::Never, &named));
    assert!(!repeatable(&keyed, b"\xff") && !repeatable(&Repetition::Always, b"\xff"));
}
