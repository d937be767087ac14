//! `gateway catalog`: what its commands print, and their exit codes.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::GATEWAY;
use crate::harness::command::{Ended, program, run};

const BOOKSTORE: &str = include_str!("../../tests/fixtures/books.proto");

/// A server, and a folder with `books.proto`.
struct Publisher {
    nats: local_nats::Server,
    folder: TempDir,
}

impl Publisher {
    fn open() -> Publisher {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("books.proto"), BOOKSTORE).unwrap();
        Publisher { nats: local_nats::Server::start().unwrap(), folder }
    }

    fn proto(&self) -> PathBuf {
        self.folder.path().join("books.proto")
    }

    /// `gateway catalog` with these arguments.
    fn catalog(&self, arguments: &[&str]) -> Ended {
        let arguments = [["catalog"].as_slice(), arguments].concat();
        let mut command = program(GATEWAY, &arguments);
        command.envs([("NATS_URL", self.nats.url()), ("GW_CATALOG_BUCKET", "contracts".to_owned())]);
        run(&mut command)
    }

    fn push(&self, more: &[&str]) -> Ended {
        let file = self.proto();
        self.catalog(&[["push", "books", file.to_str().unwrap()].as_slice(), more].concat())
    }
}

#[test]
fn contracts_are_pushed_listed_pulled_and_told_with_their_history() {
    let publisher = Publisher::open();
    let missing = publisher.push(&[]);
    assert!(missing.code == Some(1) && missing.err.contains("gateway catalog create"), "{missing:?}");
    let created = publisher.catalog(&["create"]);
    assert_eq!(created.out, "KV_contracts: created\nOBJ_contracts: created\n", "{created:?}");
    let dry = publisher.push(&["--dry-run"]);
    assert!(dry.code == Some(0) && dry.out.ends_with("nothing was changed\n"), "{dry:?}");
    assert_eq!(publisher.catalog(&["list"]).out, "the bucket contracts has no contract yet\n");
    let pushed = publisher.push(&["--by", "ann"]);
    assert!(pushed.out.ends_with("is active as revision 1, 1 routes of 1 services\n"), "{pushed:?}");
    let again = publisher.push(&[]);
    assert!(again.code == Some(0) && again.out.ends_with("is active already\n"), "{again:?}");
    let set = publisher.catalog(&["pull", "books"]);
    assert!(set.code == Some(0) && set.out.contains("bookstore.v1"), "{set:?}");
    let list = publisher.catalog(&["list"]);
    assert!(list.out.contains("  bookstore.v1.Books  ") && list.out.contains(" bytes  ann  2"), "{list:?}");
    let status: Value = serde_json::from_str(&publisher.catalog(&["status", "--json"]).out).unwrap();
    let book = &status["names"][0];
    assert_eq!((&book["name"], &book["services"][0]), (&"books".into(), &"bookstore.v1.Books".into()));
    assert_eq!((&book["history"][0]["who"], &book["problem"]), (&"ann".into(), &Value::Null));
}

#[test]
fn a_change_that_breaks_clients_and_a_wrong_contract_end_with_an_error() {
    let publisher = Publisher::open();
    publisher.catalog(&["create"]);
    assert_eq!(publisher.push(&[]).code, Some(0));
    std::fs::write(publisher.proto(), BOOKSTORE.replace("int32 pages", "string pages")).unwrap();
    let breaks = publisher.push(&[]);
    assert!(breaks.code == Some(1) && breaks.err.contains("pages"), "{breaks:?}");
    assert!(breaks.err.contains("--allow-breaking"), "{breaks:?}");
    assert_eq!(publisher.push(&["--allow-breaking"]).code, Some(0));
    std::fs::write(publisher.proto(), BOOKSTORE.replace("books.get", "books..get")).unwrap();
    let wrong = publisher.push(&[]);
    assert!(wrong.code == Some(1) && wrong.err.contains("books.proto:8"), "{wrong:?}");
    let status = publisher.catalog(&["status"]).out;
    assert_eq!(status.matches("  revision ").count(), 2, "{status}");
}
