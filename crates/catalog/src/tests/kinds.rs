//! Kinds of routes, and subjects with fields of the request.

use super::compile::{accepted, compile, file, refused};
use crate::{Catalog, Kind, Subject, SubjectError};

/// The set of `acme.Things.Do` with these types and this route.
fn described(types: &str, route: &str) -> Vec<u8> {
    let text = format!(
        "syntax = \"proto3\"; import \"natsgateway/v1/access.proto\"; import \"natsgateway/v1/route.proto\";
         import \"google/protobuf/empty.proto\"; package acme;
         service Things {{ rpc Do{types} {{ option (natsgateway.v1.route) = {{{route}}}; }} }}
         enum Size {{ SIZE_UNKNOWN = 0; SIZE_LARGE = 1; }}
         message Inner {{ string id = 1; int64 number = 2; }}
         message Thing {{
           string id = 1; Inner inner = 2; sint32 count = 3; bool open = 4; Size size = 5; repeated string tags = 6;
           bytes raw = 7; optional uint64 last = 8; uint64 plain = 9; map<string, string> labels = 10; double weight = 11;
           optional string name = 12;
         }}
         message Receipt {{ string stream = 1; uint64 sequence = 2; bool duplicate = 3; }}
         message Count {{ uint64 stored = 1; uint64 sequence = 2; }}"
    );
    compile(&[("test.proto", &text)])
}

fn subject(text: &str) -> Subject {
    let catalog = accepted(&described("(Thing) returns (Thing)", &format!("subject: \"{text}\"")));
    catalog.routes()[0].subject.clone()
}

#[test]
fn every_kind_fits_its_streams() {
    for (types, route, kind) in [
        ("(Thing) returns (Thing)", "", "REQUEST"),
        ("(Thing) returns (Thing)", "kind: KIND_REQUEST", "REQUEST"),
        ("(Thing) returns (google.protobuf.Empty)", "kind: KIND_EMIT require_subscriber: true", "EMIT"),
        ("(Thing) returns (Receipt)", "kind: KIND_EMIT_DURABLE retries: 2", "EMIT_DURABLE"),
        (
            "(stream Thing) returns (Count)",
            "kind: KIND_EMIT_DURABLE durable {message_id: \"id\"}",
            "EMIT_DURABLE",
        ),
        ("(Thing) returns (stream Thing)", "kind: KIND_REQUEST_MANY replies {count: 3}", "REQUEST_MANY"),
        ("(Thing) returns (stream Thing)", "kind: KIND_SUBSCRIBE", "SUBSCRIBE"),
    ] {
        let catalog = accepted(&described(types, &format!("subject: \"things\" {route}")));
        assert_eq!(catalog.routes()[0].kind.name(), kind, "{types} {route}");
    }
}

/// Types of an rpc, its route, and what is said of them.
const UNFIT: [(&str, &str, &str); 26] = [
    ("(stream Thing) returns (stream Thing)", "kind: KIND_REQUEST_MANY", "streams both ways"),
    ("(Thing) returns (stream Thing)", "", "KIND_REQUEST_MANY` or `kind: KIND_SUBSCRIBE"),
    ("(stream Thing) returns (Thing)", "", "write `kind: KIND_EMIT_DURABLE`"),
    ("(Thing) returns (stream Thing)", "kind: KIND_EMIT", "does not fit the streams"),
    ("(Thing) returns (Thing)", "kind: KIND_SUBSCRIBE", "does not fit the streams"),
    ("(Thing) returns (Thing)", "kind: KIND_EMIT", "google.protobuf.Empty"),
    ("(Thing) returns (Thing)", "kind: 9", "does not know kind 9"),
    ("(Thing) returns (Thing)", "kind: KIND_EMIT_DURABLE", "nobody fills the field \"id\""),
    ("(stream Thing) returns (Receipt)", "kind: KIND_EMIT_DURABLE", "nobody fills the field \"duplicate\""),
    ("(Thing) returns (Receipt)", "kind: KIND_EMIT_DURABLE durable {message_id: \"it\"}", "no field \"it\""),
    (
        "(Thing) returns (Receipt)",
        "kind: KIND_EMIT_DURABLE durable {expected_sequence: \"plain\"}",
        "optional uint64",
    ),
    ("(Thing) returns (Receipt)", "kind: KIND_EMIT_DURABLE durable {stream: \"a b\"}", "the stream \"a b\""),
    ("(Thing) returns (Thing)", "replies {count: 1}", "`replies` is for KIND_REQUEST_MANY"),
    (
        "(Thing) returns (stream Thing)",
        "kind: KIND_SUBSCRIBE metadata {request: \"x-a\"}",
        "`metadata` is for",
    ),
    (
        "(Thing) returns (google.protobuf.Empty)",
        "kind: KIND_EMIT metadata {reply: \"x-a\"}",
        "`metadata.reply` is for KIND_REQUEST and",
    ),
    (
        "(Thing) returns (Receipt)",
        "kind: KIND_EMIT_DURABLE metadata {reply: \"x-a\"}",
        "`metadata.reply` is for",
    ),
    ("(Thing) returns (Thing)", "durable {}", "`durable` is for KIND_EMIT_DURABLE"),
    ("(Thing) returns (Thing)", "require_subscriber: true", "is for KIND_EMIT"),
    ("(Thing) returns (stream Thing)", "kind: KIND_SUBSCRIBE retries: 1", "`retries` is for"),
    (
        "(Thing) returns (stream Thing)",
        "kind: KIND_SUBSCRIBE subscription {resume_field: \"id\"}",
        "needs `stream`",
    ),
    (
        "(Thing) returns (stream Thing)",
        "kind: KIND_SUBSCRIBE subscription {stream: \"S\" resume_field: \"open\"}",
        "not a string",
    ),
    (
        "(Thing) returns (stream Thing)",
        "kind: KIND_SUBSCRIBE subscription {stream: \"S\" token_field: \"open\"}",
        "no string \"open\"",
    ),
    ("(Thing) returns (stream Thing)", "kind: KIND_REQUEST_MANY replies {idle_timeout {}}", "idle_timeout"),
    ("(Thing) returns (Thing)", "envelope: ENVELOPE_NEST encoding: ENCODING_PROTOBUF", "needs ENCODING_JSON"),
    ("(Thing) returns (Receipt)", "response_body: \"it\"", "`response_body` is one of: stream, sequence"),
    ("(Thing) returns (Thing)", "response_body: \"id\" encoding: ENCODING_PROTOBUF", "needs ENCODING_JSON"),
];

#[test]
fn what_does_not_fit_a_kind_is_refused_with_a_remedy() {
    for (types, route, words) in UNFIT {
        let findings = refused(&described(types, &format!("subject: \"things\" {route}"))).to_string();
        assert!(
            findings.contains(words) && findings.contains("acme.Things.Do"),
            "{types} {route}: {findings}"
        );
    }
}

#[test]
fn a_subject_has_the_values_of_fields() {
    let template = subject("things.{id}.{inner.id}.{inner.number}.{count}.{open}.{size}");
    assert_eq!(template.pattern(), "things.*.*.*.*.*.*");
    // id "a", inner {id: "b"}, inner {number: 7}, count -3, size 1: messages are merged, defaults have a text.
    let request = b"\x0a\x01a\x12\x03\x0a\x01b\x12\x02\x10\x07\x18\x05\x28\x01";
    assert_eq!(template.expand(request, None).unwrap(), "things.a.b.7.-3.false.SIZE_LARGE");
    let tenant = subject("things.{$tenant}.get");
    assert!(tenant.has_tenant() && !tenant.is_fixed());
    assert_eq!(tenant.expand(b"", Some("acme")).unwrap(), "things.acme.get");
}

#[test]
fn what_is_not_one_token_never_becomes_a_part_of_a_subject() {
    let template = subject("things.{id}");
    let long = "x".repeat(65);
    for id in ["", ".", "a.b", "*", ">", "a b", "a\r\nPUB x", "ä", "\0", "$SYS", long.as_str()] {
        let request = [&[0x0a, u8::try_from(id.len()).unwrap()], id.as_bytes()].concat();
        let Err(SubjectError::Field(error)) = template.expand(&request, None) else { panic!("{id:?}") };
        assert_eq!(error.path(), "id");
    }
    for (template, path) in
        [("things.{inner.id}", "inner.id"), ("things.{last}", "last"), ("things.{name}", "name")]
    {
        let Err(SubjectError::Field(error)) = subject(template).expand(b"", None) else {
            panic!("{template}")
        };
        assert_eq!(error.path(), path, "what is not set is no token");
    }
    for tenant in [None, Some(""), Some("a.b"), Some("*")] {
        assert_eq!(subject("things.{$tenant}").expand(b"", tenant), Err(SubjectError::Tenant));
    }
}

#[test]
fn a_template_names_scalar_fields_behind_a_fixed_token() {
    for (template, words) in [
        ("things.{it}", "there is no field \"it\"; there are: id, inner"),
        ("things.{tags}", "not one string"),
        ("things.{raw}", "not one string"),
        ("things.{labels}", "not one string"),
        ("things.{weight}", "not one string"),
        ("things.{inner}", "not one string"),
        ("things.{id.x}", "is not one message"),
        ("things.x{id}", "has a token that is not"),
        ("{id}.things", "begins with a token of the request"),
        ("{$tenant}.things", "begins with a token of the request"),
    ] {
        let findings =
            refused(&described("(Thing) returns (Thing)", &format!("subject: \"{template}\""))).to_string();
        assert!(findings.contains(words), "{template}: {findings}");
    }
}

#[test]
fn templates_that_reach_each_others_subjects_are_alike_and_none_reaches_an_internal_one() {
    let two = |one: &str, other: &str, reply: &str| {
        Catalog::new(&file(&format!(
            "package acme;
             service Books {{
               rpc Get(Id) returns (Id) {{ option (natsgateway.v1.route) = {{subject: \"{one}\"}}; }}
               rpc Put(Id) returns ({reply}) {{ option (natsgateway.v1.route) = {{subject: \"{other}}}; }}
             }}
             message Id {{ string id = 1; }}
             message Other {{ string id = 1; }}"
        )))
        .map_err(|findings| findings.to_string())
    };
    assert!(two("books.{id}", "books.list\"", "Id").is_ok() && two("a.{id}", "b.{id}\"", "Other").is_ok());
    assert!(two("books.{id}", "books.list\"", "Other").unwrap_err().contains("another reply message"));
    assert!(two("books.{id}.x", "books.a.{id}\"", "Other").unwrap_err().contains("another reply message"));
    let internal = two("books.{id}", "books.burn\" internal: true", "Id").unwrap_err();
    assert!(internal.contains("one of the two is internal"), "{internal}");
}

#[test]
fn routes_keep_off_the_subjects_that_are_named() {
    let catalog = accepted(&described("(Thing) returns (Thing)", "subject: \"books.{id}.get\""));
    assert!(catalog.avoids(&["books.event.*.put", "maps.>"]).is_ok());
    for taken in ["books.>", "books.event.*", "books.*.get", ">"] {
        let findings = catalog.avoids(&[taken]).unwrap_err().to_string();
        assert!(findings.contains("acme.Things.Do") && findings.contains(taken), "{findings}");
    }
    assert!(matches!(catalog.routes()[0].kind, Kind::Request));
}

#[test]
fn messages_of_one_type_may_be_published_on_one_subject_by_several_rpcs_and_not_asked_there() {
    let two = |put: &str| {
        Catalog::new(&file(&format!(
            "package acme;
             service Books {{
               rpc Add(Book) returns (Added) {{ option (natsgateway.v1.route) = {{subject: \"books.{{id}}\" kind: KIND_EMIT_DURABLE}}; }}
               rpc {put};
               rpc Watch(Book) returns (stream Book) {{ option (natsgateway.v1.route) = {{subject: \"books.{{id}}\" kind: KIND_SUBSCRIBE}}; }}
             }}
             message Book {{ string id = 1; }}
             message Added {{ uint64 sequence = 1; }}
             message Count {{ uint64 stored = 1; }}"
        )))
        .map_err(|findings| findings.to_string())
    };
    let route = "option (natsgateway.v1.route) = {subject: \"books.{id}\"";
    two(&format!("AddAll(stream Book) returns (Count) {{ {route} kind: KIND_EMIT_DURABLE}}; }}")).unwrap();
    let asked = two(&format!("Get(Book) returns (Book) {{ {route}}}; }}")).unwrap_err();
    assert!(asked.contains("one is answered, the other is not"), "{asked}");
}

#[test]
fn a_field_of_the_reply_may_alone_be_the_payload() {
    let catalog = accepted(&described(
        "(Thing) returns (Thing)",
        "subject: \"things\" body: \"id\" response_body: \"tags\"",
    ));
    let codec = &catalog.routes()[0].codec;
    assert_eq!(codec.request(b"\x0a\x01a").unwrap(), b"\"a\"");
    assert_eq!(codec.reply(br#"["b"]"#).unwrap(), b"\x32\x01b");
    assert_eq!(codec.reply(br#"{"tags":["b"]}"#).unwrap_err().path(), "tags");
}

#[test]
fn a_subscription_does_not_hear_the_requests_of_an_rpc() {
    let findings = refused(&file(
        "package acme;
         service Books {
           rpc Get(Id) returns (Id) { option (natsgateway.v1.route) = {subject: \"books.{id}.get\"}; }
           rpc Watch(Id) returns (stream Id) { option (natsgateway.v1.route) = {subject: \"books.a.get\" kind: KIND_SUBSCRIBE}; }
         }
         message Id { string id = 1; }",
    ))
    .to_string();
    assert!(
        findings.contains("acme.Books.Watch") && findings.contains("requests of acme.Books.Get"),
        "{findings}"
    );
}

#[test]
fn a_member_of_a_oneof_that_was_replaced_is_not_set() {
    let catalog = accepted(&file(
        "package acme;
         service Books { rpc Get(Key) returns (Key) { option (natsgateway.v1.route) = {subject: \"books.{isbn}\"}; } }
         message Key { oneof key { string isbn = 1; string title = 2; } }",
    ));
    let subject = &catalog.routes()[0].subject;
    assert_eq!(subject.expand(b"\x12\x01t\x0a\x01i", None).unwrap(), "books.i");
    assert!(matches!(subject.expand(b"\x0a\x01i\x12\x01t", None), Err(SubjectError::Field(_))));
}
