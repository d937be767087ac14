//! What a catalog makes of protos that are right.

use std::time::Duration;

use super::compile::{accepted, compile, file, routed, rpc};
use crate::{Catalog, Encoding, Idempotency};

/// The names of the rpcs that are served.
fn names(catalog: &Catalog) -> Vec<&str> {
    catalog.rpcs().iter().map(|rpc| rpc.name()).collect()
}

#[test]
fn a_route_has_what_its_option_says() {
    let catalog = accepted(&rpc(
        "option idempotency_level = IDEMPOTENT;
         option (natsgateway.v1.route) = {
           subject: \"things.get\" queue_group: \"things\" body: \"things\" timeout: {seconds: 1 nanos: 500000000}
           retries: 3 internal: true maintenance: true
         };",
    ));
    let route = catalog.route("/acme.Things/Get").unwrap();
    assert_eq!((route.service.as_str(), route.rpc.as_str()), ("acme.Things", "Get"));
    assert_eq!((route.subject.as_str(), route.queue_group.as_str()), ("things.get", "things"));
    assert_eq!((route.timeout, route.retries), (Duration::from_millis(1_500), 3));
    assert_eq!((route.budget(), route.body.as_str()), (Duration::from_secs(6), "things"));
    assert!(route.repeatable && route.internal && route.maintenance);
    assert_eq!((catalog.client_rpcs().count(), catalog.serving_routes().count()), (0, 0));
}

#[test]
fn a_route_that_says_little_has_defaults() {
    let catalog = accepted(&routed("subject: \"get\""));
    let route = catalog.route("/acme.Things/Get").unwrap();
    assert_eq!((route.timeout, route.retries, route.queue_group.as_str()), (Duration::from_secs(5), 0, ""));
    assert_eq!((route.encoding, route.content_type()), (Encoding::Json, "application/json"));
    assert!(!route.repeatable && !route.internal && !route.maintenance);
    assert_eq!(catalog.rpc("/acme.Things/Get").unwrap().idempotency, Idempotency::Unknown);
    assert_eq!((catalog.client_rpcs().count(), catalog.serving_routes().count()), (1, 1));
}

#[test]
fn only_what_is_there_is_found() {
    let access = "option (natsgateway.v1.access) = {scope: \"things.read\"};";
    let catalog = accepted(&rpc(access));
    let path = "/acme.Things/Get";
    assert_eq!(
        (catalog.rule(path).unwrap().scope().unwrap().to_string(), catalog.rule(path).unwrap().streams),
        ("things.read".to_owned(), false)
    );
    assert_eq!(catalog.scopes().iter().map(|scope| &**scope).collect::<Vec<_>>(), ["things.read"]);
    assert_eq!(catalog.scope("things.read").map(|scope| &**scope), Some("things.read"));
    for near in ["", "acme.Things/Get", "/acme.things/get", "/acme.Things/Get/", "/acme.Things/GetAll"] {
        assert!(catalog.rule(near).is_none() && catalog.rpc(near).is_none() && catalog.scope(near).is_none());
    }
    assert!(catalog.route(path).is_none(), "an access rule is not a route");
}

#[test]
fn methods_of_one_name_in_two_services_are_two_rpcs() {
    let catalog = accepted(&file(
        "package acme;
         service Books { rpc Get(Id) returns (Id) { option (natsgateway.v1.route) = {subject: \"books.get\"}; } }
         service Maps { rpc Get(Id) returns (Id) { option (natsgateway.v1.route) = {subject: \"maps.get\"}; } }
         message Id { string id = 1; }",
    ));
    assert_eq!(names(&catalog), ["acme.Books/Get", "acme.Maps/Get"]);
    assert_eq!(catalog.route("/acme.Books/Get").unwrap().subject.as_str(), "books.get");
    assert_eq!(catalog.route("/acme.Maps/Get").unwrap().subject.as_str(), "maps.get");
}

#[test]
fn serving_routes_are_listed_as_they_are_declared() {
    let catalog = accepted(&file(
        "package acme;
         service Maps { rpc Show(Id) returns (Id) { option (natsgateway.v1.route) = {subject: \"maps.show\"}; } }
         service Books {
           rpc Lend(Id) returns (Id) { option (natsgateway.v1.route) = {subject: \"books.lend\"}; }
           rpc Get(Id) returns (Id) { option (natsgateway.v1.route) = {subject: \"books.get\"}; }
           rpc Purge(Id) returns (Id) {
             option (natsgateway.v1.route) = {subject: \"books.purge\" internal: true maintenance: true};
           }
         }
         message Id { string id = 1; }",
    ));
    let subjects: Vec<_> = catalog.serving_routes().map(|route| route.subject.as_str()).collect();
    assert_eq!(subjects, ["maps.show", "books.lend", "books.get"]);
}

#[test]
fn two_rpcs_may_have_one_request_type() {
    let catalog = accepted(&file(
        "package acme;
         service Books {
           rpc Get(Id) returns (Book) { option (natsgateway.v1.route) = {subject: \"books.get\"}; }
           rpc Delete(Id) returns (Id) {
             option idempotency_level = IDEMPOTENT;
             option (natsgateway.v1.route) = {subject: \"books.delete\" encoding: ENCODING_PROTOBUF};
           }
         }
         message Id { string id = 1; }
         message Book { string title = 1; }",
    ));
    let (get, delete) =
        (catalog.route("/acme.Books/Get").unwrap(), catalog.route("/acme.Books/Delete").unwrap());
    assert_eq!(get.codec.request(b"\x0a\x01x").unwrap(), br#"{"id":"x"}"#);
    assert_eq!(delete.codec.request(b"\x0a\x01x").unwrap(), b"\x0a\x01x");
    assert_eq!((get.codec.repeatable(b""), delete.codec.repeatable(b"")), (false, true));
}

#[test]
fn a_package_may_have_no_version_or_not_exist() {
    for (package, service) in
        [("", "Books"), ("package acme;", "acme.Books"), ("package a.b.v1beta2;", "a.b.v1beta2.Books")]
    {
        let catalog = accepted(&file(&format!(
            "{package}
             service Books {{ rpc Get(Id) returns (Id) {{ option (natsgateway.v1.route) = {{subject: \"get\"}}; }} }}
             message Id {{ string id = 1; }}"
        )));
        let route = catalog.route(&format!("/{service}/Get")).unwrap();
        assert_eq!(route.service, service);
        assert!(catalog.service(service).is_some());
    }
}

#[test]
fn options_may_be_imported_through_another_file_and_stand_beside_others() {
    let descriptors = compile(&[
        (
            "acme/options.proto",
            "syntax = \"proto3\"; package acme;
             import public \"natsgateway/v1/access.proto\";
             import public \"natsgateway/v1/route.proto\";
             import \"google/protobuf/descriptor.proto\";
             message Owner { string team = 1; }
             extend google.protobuf.MethodOptions { Owner owner = 50001; repeated string labels = 50002; }",
        ),
        (
            "acme/books.proto",
            "syntax = \"proto3\"; package acme.books; import \"acme/options.proto\";
             service Books {
               rpc Get(Id) returns (Id) {
                 option deprecated = true;
                 option (acme.owner).team = \"shelves\";
                 option (acme.labels) = \"a\";
                 option (natsgateway.v1.route).subject = \"books.get\";
                 option (natsgateway.v1.route).retries = 2;
                 option (natsgateway.v1.access).scope = \"books\";
               }
             }
             message Id { string id = 1; }",
        ),
    ]);
    let catalog = accepted(&descriptors);
    let route = catalog.route("/acme.books.Books/Get").unwrap();
    assert_eq!((route.subject.as_str(), route.retries), ("books.get", 2));
    let rule = catalog.rule("/acme.books.Books/Get").unwrap();
    assert_eq!(rule.scope().map(|scope| &**scope), Some("books"));
}

#[test]
fn a_foreign_option_with_the_same_number_is_none_of_ours() {
    let foreign = "syntax = \"proto3\"; package acme; import \"google/protobuf/descriptor.proto\";
         extend google.protobuf.MethodOptions { string note = 60432; }
         service Books { rpc Get(Id) returns (Id) { option (note) = \"hello\"; } }
         message Id { string id = 1; }";
    // Two options of one number cannot be in one set: this one is without ours.
    let route = ("natsgateway/v1/route.proto", "syntax = \"proto3\"; package natsgateway.v1;");
    let catalog = accepted(&compile(&[route, ("books.proto", foreign)]));
    assert!(catalog.services().is_empty() && catalog.routes().is_empty());
}

#[test]
fn services_with_a_route_or_a_rule_are_served_or_those_that_are_named() {
    let descriptors = file(
        "package acme;
         service Routed {
           rpc Get(Id) returns (Id) { option (natsgateway.v1.route) = {subject: \"get\"}; }
           rpc Plain(Id) returns (Id);
         }
         service Ruled { rpc Get(Id) returns (Id) { option (natsgateway.v1.access) = {scope: \"read\"}; } }
         service Bare { rpc Get(Id) returns (Id); }
         message Id { string id = 1; }",
    );
    let catalog = accepted(&descriptors);
    assert_eq!(names(&catalog), ["acme.Routed/Get", "acme.Routed/Plain", "acme.Ruled/Get"]);
    let catalog = Catalog::builder(&descriptors).service("acme.Bare").service("acme.Ruled").build().unwrap();
    assert_eq!(names(&catalog), ["acme.Bare/Get", "acme.Ruled/Get"]);
    assert!(catalog.routes().is_empty());
}

#[test]
fn a_streaming_rpc_may_have_a_rule() {
    let catalog = accepted(&file(
        "package acme;
         service Books {
           rpc Watch(Id) returns (stream Id) { option (natsgateway.v1.access) = {scope: \"read\"}; }
           rpc Load(stream Id) returns (Id) { option (natsgateway.v1.access) = {scope: \"write\"}; }
         }
         message Id { string id = 1; }",
    ));
    let (watch, load) = (catalog.rpc("/acme.Books/Watch").unwrap(), catalog.rpc("/acme.Books/Load").unwrap());
    assert!(watch.server_streaming && !watch.client_streaming && watch.streams());
    assert!(load.client_streaming && !load.server_streaming && load.streams());
    assert!(catalog.rules().iter().all(|rule| rule.streams));
    assert!(catalog.rules().is_sorted_by_key(|rule| &rule.path) && catalog.rules().len() == 2);
    assert_eq!(catalog.scopes().iter().map(|scope| &**scope).collect::<Vec<_>>(), ["read", "write"]);
}

#[test]
fn two_routes_may_share_a_subject_if_they_are_alike() {
    let catalog = accepted(&file(
        "package acme;
         service Old { rpc Get(Id) returns (Id) { option (natsgateway.v1.route) = {subject: \"get\" retries: 1}; } }
         service New { rpc Get(Id) returns (Id) { option (natsgateway.v1.route) = {subject: \"get\"}; } }
         message Id { string id = 1; }",
    ));
    assert_eq!(catalog.routes().len(), 2);
}
