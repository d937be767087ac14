//! `gateway routes`: what it prints, and its exit code.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::GATEWAY;
use crate::harness::command::{Ended, program, run};

const BOOKSTORE: &str = include_str!("../../tests/fixtures/books.proto");

/// A folder with `books.proto`.
fn folder(proto: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.proto");
    std::fs::write(&file, proto).unwrap();
    (folder, file)
}

/// `gateway routes` with a proto file.
fn routes(command: &str, proto: &str) -> Ended {
    let (_folder, file) = folder(proto);
    run(program(GATEWAY, &["routes", command]).arg(file))
}

#[test]
fn routes_are_checked_and_listed_without_a_server() {
    let good = routes("check", BOOKSTORE);
    assert_eq!((good.code, good.out.as_str()), (Some(0), "1 routes of 1 services: nothing is wrong\n"));
    let doubtful =
        routes("check", &BOOKSTORE.replace("    option idempotency_level = NO_SIDE_EFFECTS;\n", ""));
    assert!(doubtful.code == Some(0) && doubtful.out.starts_with("warning: books.proto:8"), "{doubtful:?}");
    let bad = routes("check", &BOOKSTORE.replace("books.get", "books..get"));
    assert!(bad.code == Some(1) && bad.out.starts_with("books.proto:8: "), "{bad:?}");
    let list = routes("list", BOOKSTORE);
    let line = "bookstore.v1.Books/GetBook  REQUEST  books.get  books        JSON      5s       2        books.read\n";
    assert!(list.code == Some(0) && list.out.ends_with(line), "{list:?}");
    for access in ["public", "authenticated"] {
        let list = routes("list", &BOOKSTORE.replace("scope: \"books.read\"", &format!("{access}: true")));
        assert!(list.out.ends_with(&format!("  ({access})\n")), "{list:?}");
    }
}

#[test]
fn exported_options_are_found_by_a_compiler_of_ones_own() {
    let (folder, _file) = folder(BOOKSTORE);
    let place = folder.path().to_str().unwrap();
    let ended = run(&mut program(GATEWAY, &["routes", "export", place]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mut compiler = protox::Compiler::new([place]).unwrap();
    compiler.include_imports(true).open_file("books.proto").unwrap();
    let set = folder.path().join("books.binpb");
    std::fs::write(&set, compiler.encode_file_descriptor_set()).unwrap();
    let list = run(program(GATEWAY, &["routes", "list"]).arg(set));
    assert!(list.out.contains("books.get"), "{list:?}");
}

#[test]
fn a_change_that_breaks_clients_is_told_before_it_is_served() {
    let (folder, file) = folder(BOOKSTORE);
    let mut compiler = protox::Compiler::new([folder.path(), "../proto".as_ref()]).unwrap();
    compiler.include_imports(true).open_file("books.proto").unwrap();
    let set = folder.path().join("old.binpb");
    std::fs::write(&set, compiler.encode_file_descriptor_set()).unwrap();
    let check = |proto: &str| {
        std::fs::write(&file, proto).unwrap();
        run(program(GATEWAY, &["routes", "check", "--against"]).arg(&set).arg(&file))
    };
    let same = check(BOOKSTORE);
    assert_eq!((same.code, same.out.as_str()), (Some(0), "1 routes of 1 services: nothing is wrong\n"));
    let broken = check(&BOOKSTORE.replace("int32 pages", "string pages"));
    let told = "books.proto:15: bookstore.v1.Book.pages: its type was int32; ";
    assert!(broken.code == Some(1) && broken.out.starts_with(told), "{broken:?}");
}

#[test]
fn a_key_may_have_the_scopes_of_a_contract_that_is_named() {
    let (_folder, file) = folder(BOOKSTORE);
    let new = |arguments: &[&str]| {
        run(&mut program(GATEWAY, &[&["keys", "new", "reader", "--scopes=books.read"], arguments].concat()))
    };
    let unknown = new(&[]);
    assert!(
        unknown.code == Some(1) && unknown.err.contains("--proto") && unknown.err.contains("orders.read"),
        "{unknown:?}"
    );
    let key = new(&["--proto", file.to_str().unwrap()]);
    assert!(key.code == Some(0) && key.out.contains("books.read"), "{key:?}");
}

/// Subjects of the order system, of the gateway and of the server, of any kind of route, also by what a caller writes
/// into a field.
const OUTSIDE: [(&str, &str); 22] = [
    ("orders.event.order_created.{id}", ""),
    ("orders.event.{id}.{other}", ""),
    ("orders.{id}.{other}.x", ""),
    ("orders.event.order_created.{$tenant}", ""),
    ("orders.event.order_created.x", "kind: KIND_EMIT"),
    ("orders.event.{id}.{other}", "kind: KIND_EMIT_DURABLE"),
    ("orders.event.{id}.x", "kind: KIND_SUBSCRIBE"),
    ("inventory.ledger", ""),
    ("inventory.{id}", "kind: KIND_EMIT"),
    ("dead_letters.{id}", "kind: KIND_SUBSCRIBE"),
    ("order_created", "kind: KIND_SUBSCRIBE"),
    ("order_status_updated", "kind: KIND_EMIT"),
    ("reserve_inventory", ""),
    ("release_inventory", "kind: KIND_EMIT"),
    ("settle_reservation", ""),
    ("redeliver_event", "kind: KIND_REQUEST_MANY"),
    ("gateway.control.{id}.cancel", "kind: KIND_EMIT"),
    ("_INBOX.{id}", "kind: KIND_SUBSCRIBE"),
    ("_INBOX_gateway.{id}", "kind: KIND_SUBSCRIBE"),
    ("$JS.API.STREAM.DELETE.ORDERS", ""),
    ("{id}.{other}", "kind: KIND_EMIT"),
    ("books.>", "kind: KIND_SUBSCRIBE"),
];

#[test]
fn no_route_reaches_a_subject_that_is_not_for_services_whether_or_not_orders_are_on() {
    for (subject, kind) in OUTSIDE {
        let (reply, import) = match kind {
            "kind: KIND_EMIT" => ("google.protobuf.Empty", "import \"google/protobuf/empty.proto\";"),
            "kind: KIND_EMIT_DURABLE" => ("Stored", ""),
            "kind: KIND_SUBSCRIBE" | "kind: KIND_REQUEST_MANY" => ("stream Key", ""),
            _ => ("Key", ""),
        };
        let proto = format!(
            "syntax = \"proto3\"; import \"natsgateway/v1/route.proto\"; {import}
             service Strange {{ rpc Do(Key) returns ({reply}) {{
               option (natsgateway.v1.route) = {{subject: \"{subject}\" {kind}}}; }} }}
             message Key {{ string id = 1; string other = 2; }}
             message Stored {{ uint64 sequence = 1; }}"
        );
        for orders in ["--orders=false", "--orders=true"] {
            let (_folder, file) = folder(&proto);
            let mut command = program(GATEWAY, &["config", "check", "--insecure", "--proto"]);
            let refused = run(command.arg(file).arg(orders));
            let told = format!("{refused:?}");
            assert!(refused.code == Some(1) && told.contains("Strange.Do"), "{subject} {kind}: {told}");
        }
    }
}
