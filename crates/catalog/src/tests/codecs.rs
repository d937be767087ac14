//! Which codec a route has.

use std::sync::Arc;

use super::compile::{accepted, file, routed};
use crate::{Catalog, Codec, CodecError};

/// A codec that stands for one of generated types.
#[derive(Debug)]
struct Typed;

impl Codec for Typed {
    fn request(&self, _: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(b"typed".to_vec())
    }

    fn reply(&self, _: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(b"typed".to_vec())
    }

    fn repeatable(&self, _: &[u8]) -> bool {
        true
    }
}

#[test]
fn a_caller_may_bring_a_codec_and_the_others_are_generic() {
    let descriptors = file(
        "package acme;
         service Books {
           rpc Get(Id) returns (Id) { option (natsgateway.v1.route) = {subject: \"get\"}; }
           rpc Delete(Id) returns (Id) { option (natsgateway.v1.route) = {subject: \"delete\"}; }
         }
         message Id { string id = 1; }",
    );
    let catalog = Catalog::builder(&descriptors).codec("/acme.Books/Get", Arc::new(Typed)).build().unwrap();
    let payload =
        |rpc: &str| catalog.route(&format!("/acme.Books/{rpc}")).unwrap().codec.request(b"").unwrap();
    assert_eq!((payload("Get"), payload("Delete")), (b"typed".to_vec(), br#"{"id":""}"#.to_vec()));
}

#[test]
fn a_body_is_the_payload() {
    let catalog = accepted(&routed("subject: \"get\" body: \"things\""));
    let codec = &catalog.route("/acme.Things/Get").unwrap().codec;
    assert_eq!(codec.request(b"\x0a\x01x\x12\x03\x0a\x01a").unwrap(), br#"[{"name":"a"}]"#);
    assert_eq!(codec.reply(br#"{"thing":{"name":"a"}}"#).unwrap(), b"\x0a\x03\x0a\x01a");
}

#[test]
fn a_reply_has_either_spelling_of_a_name_and_a_request_that_of_the_proto() {
    let catalog = accepted(&file(
        "package acme;
         service Books { rpc Get(Book) returns (Book) { option (natsgateway.v1.route) = {subject: \"get\"}; } }
         message Book { int64 book_id = 1; string isbn_code = 2 [json_name = \"isbn_code\"]; }",
    ));
    let codec = &catalog.route("/acme.Books/Get").unwrap().codec;
    let book = b"\x08\x07\x12\x01x";
    assert_eq!(codec.request(book).unwrap(), br#"{"bookId":"7","isbn_code":"x"}"#);
    for reply in [r#"{"bookId":"7","isbn_code":"x"}"#, r#"{"book_id":7,"isbn_code":"x"}"#] {
        assert_eq!(codec.reply(reply.as_bytes()).unwrap(), book, "{reply}");
    }
}

#[test]
fn nested_and_well_known_messages_are_converted() {
    let catalog = accepted(&file(
        "package acme;
         import \"google/protobuf/empty.proto\"; import \"google/protobuf/timestamp.proto\";
         import \"google/protobuf/wrappers.proto\";
         service Watch {
           rpc Now(google.protobuf.Empty) returns (google.protobuf.Timestamp) {
             option (natsgateway.v1.route) = {subject: \"clock.now\"};
           }
           rpc Set(Clock.Set.Request) returns (google.protobuf.StringValue) {
             option (natsgateway.v1.route) = {subject: \"clock.set\" body: \"hand\"};
           }
         }
         message Clock { message Set { message Request { Hand hand = 1; enum Hand { NONE = 0; HOUR = 1; } } } }",
    ));
    let now = &catalog.route("/acme.Watch/Now").unwrap().codec;
    assert_eq!(now.request(b"").unwrap(), b"{}");
    assert_eq!(now.reply(b"\"1970-01-01T00:00:01Z\"").unwrap(), b"\x08\x01");
    let set = &catalog.route("/acme.Watch/Set").unwrap().codec;
    assert_eq!(set.request(b"\x08\x01").unwrap(), b"\"HOUR\"");
    assert_eq!(set.reply(b"\"done\"").unwrap(), b"\x0a\x04done");
}

#[test]
fn a_request_with_an_id_is_repeatable_under_it() {
    let rpc = |level: &str| {
        let catalog = accepted(&file(&format!(
            "service Books {{
               rpc Put(Book) returns (Book) {{
                 option idempotency_level = {level};
                 option (natsgateway.v1.route) = {{subject: \"put\" encoding: ENCODING_PROTOBUF}};
               }}
             }}
             message Book {{ string request_id = 1; }}"
        )));
        let route = catalog.route("/Books/Put").unwrap().clone();
        (route.repeatable, [&b""[..], b"\x0a\x01x", b"\xff"].map(|request| route.codec.repeatable(request)))
    };
    assert_eq!(rpc("IDEMPOTENCY_UNKNOWN"), (false, [false, false, false]));
    assert_eq!(rpc("IDEMPOTENT"), (true, [false, true, false]));
    assert_eq!(rpc("NO_SIDE_EFFECTS"), (true, [true, true, false]));
}
