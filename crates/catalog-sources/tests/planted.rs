//! Faults that are planted in a proto: each is found, with its line and what to write instead.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use catalog_sources::Options;

const PROTO: &str = r#"syntax = "proto3";
package shop.v1;
import "google/protobuf/wrappers.proto";
import "natsgateway/v1/access.proto";
import "natsgateway/v1/route.proto";
service Shop {
  rpc Get(GetRequest) returns (Thing) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (natsgateway.v1.access) = {scope: "shop.read"};
    option (natsgateway.v1.route) = {subject: "shop.get" queue_group: "shop" timeout: {seconds: 2} retries: 2};
  }
  rpc Put(Thing) returns (Thing) {
    option (natsgateway.v1.access) = {scope: "shop.write"};
    option (natsgateway.v1.route) = {subject: "shop.put"};
  }
}
message GetRequest { string id = 1; }
message Thing { string id = 1; }
"#;
const GET: &str = "shop.proto:7: shop.v1.Shop.Get: ";
const PUT: &str = "shop.proto:12: shop.v1.Shop.Put: ";

/// A text of the proto, what stands there instead, where that is told, and a word of the remedy.
const PLANTED: [(&str, &str, &str, &str); 30] = [
    ("\"shop.get\"", "\"\"", GET, "like \"books.get\""),
    ("\"shop.get\"", "\"shop.*\"", GET, "without wildcards"),
    ("\"shop.get\"", "\"shop get\"", GET, "joined by dots"),
    ("\"shop.get\"", "\"shop..get\"", GET, "joined by dots"),
    ("\"shop.get\"", "\"$SRV.PING\"", GET, "joined by dots"),
    ("\"shop.get\"", "\"_INBOX.get\"", GET, "choose another"),
    ("\"shop.get\"", "\"_INBOX_gateway.get\"", GET, "choose another"),
    ("queue_group: \"shop\"", "queue_group: \"a >\"", GET, "for no queue group"),
    ("retries: 2", "retries: 101", GET, "at most 100"),
    ("seconds: 2", "seconds: 0", GET, "leave it out for 5 s"),
    ("seconds: 2", "seconds: -1", GET, "leave it out for 5 s"),
    ("seconds: 2", "seconds: 86401", GET, "leave it out for 5 s"),
    ("retries: 2", "body: \"name\"", GET, "`body` is one of: id"),
    ("retries: 2", "body: \"id\" encoding: ENCODING_PROTOBUF", GET, "ENCODING_JSON"),
    ("retries: 2", "encoding: 7", GET, "ENCODING_PROTOBUF"),
    (
        "retries: 2",
        "metadata: {request: \"X-Principal-Is\", request: \"Principal\"}",
        GET,
        "choose another name",
    ),
    ("retries: 2", "metadata: {reply: \"Grpc-Status\"}", GET, "choose another name"),
    ("retries: 2", "metadata: {reply: \"Trailer-X-Cost\"}", GET, "without `Trailer-`"),
    ("retries: 2", "metadata: {request: \"x tag\"}", GET, "letters, digits"),
    ("retries: 2", "metadata: {request: [\"x-tag\", \"X-Tag\"]}", GET, "remove one"),
    ("retries: 2", "maintenance: true", GET, "internal: true"),
    (
        "returns (Thing) {\n    option idem",
        "returns (stream Thing) {\n    option idem",
        GET,
        "KIND_REQUEST_MANY",
    ),
    ("Put(Thing)", "Put(stream Thing)", PUT, "KIND_EMIT_DURABLE"),
    ("\"shop.read\"", "\"Shop:read\"", GET, "like \"books.read\""),
    ("\"shop.put\"", "\"shop.get\"", PUT, "make the routes alike"),
    ("    option (natsgateway.v1.route) = {subject: \"shop.put\"};\n", "", PUT, "a service of its own"),
    ("Put(Thing)", "Put(Thin)", "shop.proto:12:", "Thin"),
    ("string id = 1; }\nmessage", "strin id = 1; }\nmessage", "shop.proto:17:", "strin"),
    ("subject: \"shop.put\"", "subjct: \"shop.put\"", "shop.proto:14:", "subjct"),
    ("natsgateway/v1/route", "natsgateway/v2/route", "shop.proto:5:", "--proto-path"),
];

/// What `gateway routes check` and a start say of this text.
fn told(folder: &Path, text: &str) -> Result<String, String> {
    let file = folder.join("shop.proto");
    std::fs::write(&file, text).unwrap();
    let options = Options { proto: vec![file], ..Options::default() };
    let warnings = |catalogs: Vec<std::sync::Arc<catalog::Catalog>>| {
        let all = catalogs.iter().flat_map(|catalog| catalog.warnings());
        all.map(|warning| format!("{warning}\n")).collect()
    };
    options.read().map(warnings).map_err(|problems| problems.to_string())
}

#[test]
fn every_planted_fault_is_found_with_its_line_and_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(told(folder.path(), PROTO), Ok(String::new()));
    for (from, to, place, remedy) in PLANTED {
        assert_eq!(PROTO.matches(from).count(), 1, "{from}");
        let problems = told(folder.path(), &PROTO.replace(from, to)).expect_err(to);
        let found = problems.lines().any(|line| line.starts_with(place) && line.contains(remedy));
        assert!(found, "{from:?} → {to:?}: {problems}");
    }
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, remedy) in [
        ("    option idempotency_level = NO_SIDE_EFFECTS;\n", "", "idempotency_level"),
        ("    option (natsgateway.v1.access) = {scope: \"shop.read\"};\n", "", "natsgateway.v1.access"),
    ] {
        let warnings = told(folder.path(), &PROTO.replace(from, to)).unwrap();
        assert!(warnings.starts_with(GET) && warnings.contains(remedy), "{warnings}");
    }
}

#[test]
fn sources_that_cannot_be_read_are_told_together() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(folder.path().join("junk.binpb"), b"\xff\xff\xff").unwrap();
    let sources =
        ["missing.proto", "missing.binpb", "empty", "junk.binpb"].map(|name| folder.path().join(name));
    let [proto, sets @ ..] = sources;
    let options = Options { proto: vec![proto], descriptor_set: sets.to_vec(), ..Options::default() };
    let problems = options.read().unwrap_err();
    let told: Vec<&str> = problems.iter().collect();
    assert_eq!(told.len(), 4, "{told:?}");
    for (problem, words) in
        told.iter().zip(["there is no file", "missing.binpb", "has no file", "cannot be decoded"])
    {
        assert!(problem.contains(words), "{problem}");
    }
}
