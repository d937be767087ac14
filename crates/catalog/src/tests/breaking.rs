//! What breaks clients of a catalog, and what does not.

use super::compile::{accepted, file};

const BEFORE: &str = "package acme;
service Things {
  rpc Get(Request) returns (Reply) {
    option (natsgateway.v1.access) = {scope: \"things.read\"};
    option (natsgateway.v1.route) = {subject: \"things.get\" queue_group: \"things\" retries: 1};
  }
  rpc Put(Thing) returns (Reply) {
    option (natsgateway.v1.route) = {subject: \"things.put\" body: \"names\"};
  }
}
message Request { string id = 1; }
message Thing {
  repeated string names = 1;
  int32 size = 2;
  optional int32 weight = 3;
  Color color = 4;
  map<string, int32> parts = 5;
  oneof owner { string person = 6; string company = 7; }
  Thing inner = 8;
}
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; }
message Reply { Thing thing = 1; }";

/// What breaks where this becomes that.
fn breaks(changes: &[(&str, &str)]) -> Vec<String> {
    let after = changes.iter().fold(BEFORE.to_owned(), |text, (this, that)| {
        assert!(text.contains(this), "{this}");
        text.replace(this, that)
    });
    let (before, after) = (accepted(&file(BEFORE)), accepted(&file(&after)));
    before.breaking(&after).iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_new_or_reserved_or_does_not_show_breaks_nothing() {
    for changes in [
        &[][..],
        &[("message Request { string id = 1; }", "message Request { string id = 1; string more = 2; }")],
        &[("COLOR_RED = 1;", "COLOR_RED = 1; COLOR_BLUE = 2;")],
        &[("  int32 size = 2;\n", "  reserved 2; reserved \"size\";\n")],
        &[(
            "service Things {",
            "service Things { rpc List(Request) returns (Reply) { option (natsgateway.v1.route) = {subject: \"things.list\"}; }",
        )],
        // Timeouts, retries and limits are the operator's.
        &[("retries: 1", "retries: 2 timeout: {seconds: 1} max_in_flight: 5")],
        // A message by another name is the same on the wire and in JSON.
        &[("Request", "GetThing")],
    ] {
        assert_eq!(breaks(changes), [""; 0], "{changes:?}");
    }
}

#[test]
fn every_change_that_clients_or_services_notice_is_told() {
    for (this, that, told) in [
        ("service Things", "service Others", "acme.Things: the service was removed"),
        ("rpc Put(", "rpc Store(", "acme.Things/Put: the rpc was removed"),
        ("rpc Get(Request) returns (Reply)", "rpc Get(Request) returns (Thing)", "field 1 was \"thing\""),
        ("string id = 1;", "string id = 1 [json_name = \"key\"];", "its name in JSON was \"id\""),
        ("string id = 1;", "string key = 1;", "field 1 was \"id\""),
        ("string id = 1;", "string id = 2;", "its number 1 and its name are not reserved"),
        ("string id = 1;", "reserved 1;", "its number 1 and its name are not reserved"),
        ("string id = 1;", "bytes id = 1;", "its type was string"),
        ("int32 size = 2;", "int64 size = 2;", "its type was int32"),
        ("int32 size = 2;", "optional int32 size = 2;", "it could not be unset"),
        ("optional int32 weight", "int32 weight", "it could be unset"),
        ("int32 size = 2;", "repeated int32 size = 2;", "it was not repeated"),
        ("map<string, int32>", "map<string, int64>", "its type was map<string, int32>"),
        ("string company = 7; }", "} string company = 7;", "it was part of the oneof \"owner\""),
        ("COLOR_RED = 1", "COLOR_RED = 2", "COLOR_RED = 1 was removed, renamed or renumbered"),
        ("COLOR_RED = 1", "COLOR_BLUE = 1", "COLOR_RED = 1 was removed, renamed or renumbered"),
        ("things.get", "things.find", "the subject of its route was \"things.get\", and is \"things.find\""),
        ("queue_group: \"things\"", "", "the queue group of its route"),
        ("retries: 1", "encoding: ENCODING_PROTOBUF", "the encoding of its route"),
        ("retries: 1", "envelope: ENVELOPE_NEST", "the envelope of its route"),
        ("retries: 1", "metadata: {request: \"X-Tag\"}", "the metadata of its route"),
        ("retries: 1", "metadata: {reply: \"x-tag\"}", "request: ; reply: x-tag"),
        ("retries: 1", "internal: true", "the internal of its route"),
        (" body: \"names\"", "", "the body of its route"),
        ("things.read", "things.write", "its access was scope things.read, and is scope things.write"),
        ("option (natsgateway.v1.access) = {scope: \"things.read\"};", "", "(scope things.read) was removed"),
    ] {
        let found = breaks(&[(this, that)]);
        assert!(found.iter().any(|finding| finding.contains(told)), "{this} → {that}: {found:?}");
    }
}

#[test]
fn a_kind_and_the_streams_of_an_rpc_are_part_of_its_contract() {
    let many = "rpc Get(Request) returns (stream Reply)";
    let found =
        breaks(&[("rpc Get(Request) returns (Reply)", many), ("retries: 1", "kind: KIND_REQUEST_MANY")]);
    assert!(found.iter().any(|finding| finding.contains("it streams in another way")), "{found:?}");
    assert!(found.iter().any(|finding| finding.contains("the kind of its route")), "{found:?}");
}

#[test]
fn a_break_is_told_with_its_file() {
    let [found] = &breaks(&[("int32 size = 2;", "int64 size = 2;")])[..] else { panic!("one") };
    assert!(found.starts_with("test.proto"), "{found}");
    assert!(found.contains("acme.Thing.size: its type was int32"), "{found}");
}
