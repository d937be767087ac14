//! Which names of metadata a route may list.

use super::compile::{accepted, file, refused};
use crate::{Metadata, MetadataKey};

fn described(lists: &str) -> Vec<u8> {
    file(&format!(
        "package acme;
         service Things {{
           rpc Do(Thing) returns (Thing) {{
             option (natsgateway.v1.route) = {{subject: \"things\" metadata: {{{lists}}}}};
           }}
         }}
         message Thing {{ string id = 1; }}"
    ))
}

fn read(lists: &str) -> Metadata {
    accepted(&described(lists)).routes()[0].metadata.clone()
}

#[test]
fn names_are_spelled_as_listed_on_nats_and_in_lower_case_in_grpc() {
    let metadata = read("request: [\"X-Tag\", \"a_b.c-1-bin\"] reply: \"X-Tag\"");
    let names: Vec<_> = metadata.request.iter().map(|key| (key.header(), key.key())).collect();
    assert_eq!(names, [("X-Tag", "x-tag"), ("a_b.c-1-bin", "a_b.c-1-bin")]);
    assert_eq!(metadata.reply.iter().map(MetadataKey::key).collect::<Vec<_>>(), ["x-tag"]);
    assert_eq!(metadata.to_string(), "request: X-Tag, a_b.c-1-bin; reply: x-tag");
    assert_eq!(read(""), Metadata::default());
}

#[test]
fn a_header_of_a_reply_is_matched_without_case_and_as_a_trailer_with_its_prefix() {
    let metadata = read("reply: \"X-Tag\"");
    for (header, matched) in [
        ("x-tag", Some(false)),
        ("X-TAG", Some(false)),
        ("Trailer-X-Tag", Some(true)),
        ("TRAILER-x-tag", Some(true)),
        ("x-tags", None),
        ("Trailer-Trailer-X-Tag", None),
        ("Trailer-", None),
        ("", None),
        ("äöüßäöüßx-tag", None),
    ] {
        assert_eq!(metadata.reply[0].matches(header), matched, "{header}");
    }
}

#[test]
fn names_of_the_gateway_of_nats_and_of_http_never_pass() {
    for name in [
        "Principal",
        "Tenant",
        "Request-Id",
        "Request-Anything",
        "Stream-Window",
        "Nats-Msg-Id",
        "Grpc-Status",
        "grpc-timeout",
        "Connection",
        "TE",
        "Transfer-Encoding",
        "Keep-Alive",
        "Upgrade",
        "Proxy-Authorization",
        "Trailer",
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "Content-Type",
        "Content-Anything",
        "Access-Control-Allow-Origin",
        "X-Api-Key",
        "X-Request-Id",
        "traceparent",
        "tracestate",
        "baggage",
        "Host",
        "Date",
    ] {
        for list in ["request", "reply"] {
            let findings = refused(&described(&format!("{list}: \"{name}\""))).to_string();
            let told = format!("`metadata.{list}`: {name:?} never passes");
            assert!(findings.contains(&told) && findings.contains("choose another"), "{name}: {findings}");
            assert!(findings.starts_with("test.proto:"), "{findings}");
        }
    }
}

#[test]
fn what_is_no_key_and_what_is_there_twice_is_refused() {
    let long = "x".repeat(129);
    for name in
        ["", " ", "x tag", "x:tag", ":path", "x-täg", "x-tag\\r\\nNats-Rollup", "x/tag", long.as_str()]
    {
        let findings = refused(&described(&format!("request: \"{name}\""))).to_string();
        assert!(findings.contains("is no key of gRPC's metadata"), "{name}: {findings}");
    }
    let twice = refused(&described("reply: [\"x-tag\", \"X-TAG\"]")).to_string();
    assert!(twice.contains("\"X-TAG\" is listed twice"), "{twice}");
    let trailer = refused(&described("reply: \"Trailer-X-Tag\"")).to_string();
    assert!(trailer.contains("without `Trailer-`"), "{trailer}");
    let many = |count: usize| (0..count).map(|n| format!("request: \"x-{n}\" ")).collect::<String>();
    assert_eq!(read(&many(32)).request.len(), 32);
    assert!(refused(&described(&many(33))).to_string().contains("list at most 32"));
}
