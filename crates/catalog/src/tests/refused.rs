//! What a catalog refuses, and what it says about it.

use std::sync::Arc;

use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use transcode::ProtobufCodec;

use super::compile::{compile, file, refused, routed, rpc};
use crate::{Catalog, Findings};

/// Asserts that there is one finding, about `acme.Things.Get`, with this in its text.
fn assert_finding(descriptors: &[u8], text: &str) {
    let findings = refused(descriptors);
    let found: Vec<_> = findings.iter().collect();
    assert_eq!(found.len(), 1, "{findings}");
    assert_eq!((found[0].file.as_str(), found[0].element.as_str()), ("test.proto", "acme.Things.Get"));
    assert!(!found[0].remedy.is_empty() && findings.to_string().contains(text), "{text}: {findings}");
}

#[test]
fn a_subject_is_tokens_without_wildcards() {
    let long = "x".repeat(65);
    for subject in ["", ".", "a.", "a..b", "*", "a.>", "a b", "a\\nb", "$SYS.x", "a.ä", long.as_str()] {
        assert_finding(&routed(&format!("subject: \"{subject}\"")), "[A-Za-z0-9_-]{1,64}");
    }
    assert_finding(&routed("subject: \"_INBOX.x\""), "begins with _INBOX");
    assert_finding(&routed(""), "the subject \"\"");
}

#[test]
fn a_queue_group_is_tokens_too() {
    assert_finding(&routed("subject: \"get\" queue_group: \"a b\""), "the queue group \"a b\"");
}

#[test]
fn a_body_is_a_field_of_the_request() {
    assert_finding(
        &routed("subject: \"get\" body: \"items\""),
        "the request acme.Request has no field \"items\"; `body` is one of: id, things",
    );
    let protobuf = "subject: \"get\" body: \"things\" encoding: ENCODING_PROTOBUF";
    assert_finding(&routed(protobuf), "the body \"things\" needs ENCODING_JSON");
}

#[test]
fn limits_have_ranges() {
    for timeout in
        ["{}", "{seconds: -1}", "{nanos: -1}", "{seconds: 86401}", "{seconds: 1 nanos: 1000000000}"]
    {
        assert_finding(
            &routed(&format!("subject: \"get\" timeout: {timeout}")),
            "is not within 1 ns and 24 h",
        );
    }
    assert_finding(&routed("subject: \"get\" retries: 101"), "101 retries are too many; set at most 100");
}

#[test]
fn a_scope_is_words_joined_by_dots() {
    for scope in [".", "a.", "A", "a-b", "a1", "a b"] {
        let access = format!("option (natsgateway.v1.access) = {{scope: \"{scope}\"}};");
        assert_finding(&rpc(&access), "is not words of [a-z] joined by dots");
    }
}

#[test]
fn maintenance_is_not_for_clients() {
    assert_finding(&routed("subject: \"get\" maintenance: true"), "set `internal: true` as well");
}

#[test]
fn two_routes_on_one_subject_are_alike() {
    let two = |types: &str, other: &str| {
        let findings = refused(&file(&format!(
            "package acme;
             service Books {{
               rpc Get(Id) returns (Id) {{ option (natsgateway.v1.route) = {{subject: \"get\"}}; }}
               rpc Put{types} {{ option (natsgateway.v1.route) = {{subject: \"get\" {other}}}; }}
             }}
             message Id {{ string id = 1; }}
             message Other {{ string id = 1; }}"
        )));
        assert_eq!(
            findings.iter().map(|finding| finding.element.as_str()).collect::<Vec<_>>(),
            ["acme.Books.Put"]
        );
        findings.to_string()
    };
    assert!(
        two("(Other) returns (Id)", "")
            .contains("is that of acme.Books.Get too, with another request message;")
    );
    assert!(two("(Id) returns (Other)", "").contains("another reply message;"));
    assert!(two("(Id) returns (Id)", "encoding: ENCODING_PROTOBUF").contains("another encoding;"));
    assert!(
        two("(Id) returns (Id)", "queue_group: \"q\" body: \"id\"").contains("another body, queue group;")
    );
}

#[test]
fn everything_is_reported_at_once_with_its_line() {
    let findings = refused(&file(
        "package acme;
         service Books {
           rpc Get(Id) returns (stream Id) {
             option (natsgateway.v1.route) = {subject: \"a b\" body: \"x\" timeout: {} retries: 101};
             option (natsgateway.v1.access) = {scope: \"BOOKS\"};
           }
           rpc Put(Id) returns (Id) { option (natsgateway.v1.route) = {}; }
         }
         message Id { string id = 1; }",
    ));
    let places: Vec<_> = findings.iter().map(|finding| (finding.line, finding.element.as_str())).collect();
    let (get, put) = ((Some(4), "acme.Books.Get"), (Some(8), "acme.Books.Put"));
    assert_eq!(places, [get, get, get, get, get, get, put]);
    assert!(
        findings
            .to_string()
            .contains("test.proto:4: acme.Books.Get: is streaming, and its route has no kind"),
        "{findings}"
    );
}

#[test]
fn options_of_a_newer_gateway_are_refused() {
    let route = "syntax = \"proto3\"; package natsgateway.v1; import \"google/protobuf/descriptor.proto\";
         message Route { string subject = 1; string stream = 20; }
         extend google.protobuf.MethodOptions { Route route = 60432; }";
    let user = "syntax = \"proto3\"; package acme; import \"natsgateway/v1/route.proto\";
         service Things { rpc Get(Id) returns (Id) {
           option (natsgateway.v1.route) = {subject: \"get\" stream: \"S\"};
         } }
         message Id { string id = 1; }";
    let newer = compile(&[("natsgateway/v1/route.proto", route), ("test.proto", user)]);
    assert_finding(&newer, "this gateway does not know field 20 of the option natsgateway.v1.route");
    assert_finding(&routed("subject: \"get\" encoding: 7"), "this gateway does not know encoding 7");
    let moved =
        compile(&[("natsgateway/v1/route.proto", &route.replace("60432", "50000")), ("test.proto", user)]);
    assert!(refused(&moved).to_string().contains("natsgateway.v1.route: is not field 60432"));
}

#[test]
fn a_set_without_its_imports_or_of_other_bytes_is_refused() {
    let pool = DescriptorPool::decode(routed("subject: \"get\"").as_slice()).unwrap();
    let mut alone: Vec<_> = pool.file_descriptor_protos().cloned().collect();
    alone.retain(|file| file.name() == "test.proto");
    let alone = FileDescriptorSet { file: alone };
    for descriptors in [alone.encode_to_vec(), b"\xff\xff".to_vec()] {
        let findings = refused(&descriptors);
        assert!(
            findings.to_string().contains("cannot be decoded") && findings.to_string().contains("buf build")
        );
    }
}

#[test]
fn what_the_library_would_panic_at_is_refused() {
    let changed = |change: fn(&mut FileDescriptorProto)| {
        let descriptors = file("package acme; message Bag { map<string, int32> things = 1; }");
        let mut set = FileDescriptorSet::decode(descriptors.as_slice()).unwrap();
        change(set.file.last_mut().unwrap());
        refused(&set.encode_to_vec()).to_string()
    };
    let editions = changed(|file| file.syntax = Some("editions".to_owned()));
    assert!(editions.starts_with("test.proto: the syntax \"editions\" is not supported;"), "{editions}");
    let valueless = changed(|file| file.message_type[0].nested_type[0].field.truncate(1));
    assert!(valueless.starts_with("test.proto: acme.Bag.ThingsEntry: is a map entry"), "{valueless}");
}

#[test]
fn names_that_match_nothing_are_refused() {
    let descriptors = routed("subject: \"get\"");
    let build = |service: &str, path: &str| -> Findings {
        let message = DescriptorPool::decode(descriptors.as_slice())
            .unwrap()
            .get_message_by_name("acme.Reply")
            .unwrap();
        let codec = ProtobufCodec::new(message.clone(), message, transcode::Repetition::Never);
        Catalog::builder(&descriptors).service(service).codec(path, Arc::new(codec)).build().unwrap_err()
    };
    assert!(build("acme.Thing", "/acme.Things/Get").to_string().contains("name one of: acme.Things"));
    let codec = build("acme.Things", "/acme.Things/Put").to_string();
    assert_eq!(
        codec,
        "descriptor set: /acme.Things/Put: a codec is given for an rpc without a route; add a route, or remove the codec"
    );
}

#[test]
fn a_finding_is_one_short_line_whatever_the_set_says() {
    let subject = format!("a\\n{}", "x".repeat(10_000));
    let findings = refused(&routed(&format!("subject: \"{subject}\""))).to_string();
    assert!(findings.len() < 1_500 && !findings.contains(char::is_control), "{findings}");
}
