//! Contracts that lie on NATS: pushed, served, changed while they are served.

use std::path::PathBuf;

use catalog_bucket::{Bucket, BucketName, Digest, Pointer, Target};
use gateway::Gateway;
use gateway::bucket::{BucketCommand, CatalogCommand, Create, Place, Pull, Push, Shown};
use gateway::config::Serve;
use gateway::config::bucket::Source;
use gateway::routes::Contracts;
use nats::{Connection, Options};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::contracts::{BOOKSTORE, GET_BOOK, REPLY, REQUEST, bookstore, channel, folder, nats};
use crate::harness::codec;
use crate::harness::http::answer;
use crate::harness::roles::{self, RoleClient};
use crate::harness::system::{PATIENCE, System, until};
use crate::roles::assert_quiet;

/// The name of the bucket.
pub const BUCKET: &str = "contracts";
/// Another rpc of the bookstore, on the same subject.
const FIND_BOOK: &str = "/bookstore.v1.Books/FindBook";

/// A bucket, and what its publisher does.
pub struct Shelf {
    pub nats: local_nats::Server,
    pub bucket: Bucket,
    /// How the publisher connects.
    pub options: Options,
}

impl Shelf {
    pub async fn open() -> Shelf {
        let nats = nats(None).await;
        let options = Options::at(nats.url());
        let link = Connection::connect(&options, "test").await.unwrap();
        let name = BucketName::parse(BUCKET).unwrap();
        catalog_bucket::create(&link, name, 1).await.unwrap();
        Shelf { nats, bucket: Bucket::new(link, name), options }
    }

    /// `gateway catalog push books` of this proto.
    pub async fn push(&self, proto: &str) -> Result<(), String> {
        self.push_as("books", proto, |_| {}).await
    }

    pub async fn push_as(
        &self,
        name: &str,
        proto: &str,
        change: impl FnOnce(&mut Push),
    ) -> Result<(), String> {
        let (_folder, file) = folder(proto);
        let mut push = Push {
            name: name.to_owned(),
            contracts: contracts(file),
            allow_breaking: false,
            dry_run: false,
            by: Some("ann".to_owned()),
            place: self.place(),
        };
        change(&mut push);
        self.run(BucketCommand::Push(Box::new(push))).await
    }

    pub async fn run(&self, command: BucketCommand) -> Result<(), String> {
        gateway::bucket::run(CatalogCommand { command }).await.map_err(|error| format!("{error:#}"))
    }

    pub fn place(&self) -> Place {
        Place { catalog_bucket: self.bucket.name(), nats: self.options.clone() }
    }

    /// The digest that a name points at.
    pub async fn active(&self, name: &str) -> Option<Digest> {
        match self.bucket.slot(name, Instant::now() + PATIENCE).await.unwrap().target {
            Some(Target::Set(pointer)) => Some(pointer.digest),
            _ => None,
        }
    }

    /// A gateway that serves it.
    pub async fn serve(&self, change: impl FnOnce(&mut Serve)) -> Result<Gateway, String> {
        let mut config = serving(&self.nats.url());
        change(&mut config);
        Gateway::start(config).await.map_err(|error| format!("{error:#}"))
    }
}

pub fn contracts(file: PathBuf) -> Contracts {
    Contracts { files: vec![file], sources: catalog_sources::Options::default() }
}

/// A gateway that serves a bucket, on the subjects of books, to anybody.
pub fn serving(url: &str) -> Serve {
    let bucket = Source {
        catalog_bucket: Some(BucketName::parse(BUCKET).unwrap()),
        catalog_allow: vec!["books.>".to_owned()],
        allow_anonymous: true,
    };
    Serve { bucket, threads: 1, ..Serve::at(url) }
}

/// The bookstore with another rpc.
pub fn larger() -> String {
    let rpc = BOOKSTORE.split_once("  rpc GetBook").unwrap().1.split_once("\n  }\n").unwrap().0;
    BOOKSTORE.replace("  rpc GetBook", &format!("  rpc FindBook{rpc}\n  }}\n  rpc GetBook"))
}

/// Whether contracts were read again so often with this result.
pub async fn reloaded(gateway: &Gateway, result: &str, count: u32) {
    let name = format!("gateway_catalog_reloads_total{{result=\"{result}\"}} ");
    until(&name, async || {
        let page = answer(gateway.http_addr(), "/metrics").await;
        let told = page.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        // The gateway may have looked by itself as well.
        told.parse::<u32>().unwrap() >= count
    })
    .await;
}

async fn get_book(channel: &Channel) -> Vec<u8> {
    codec::ask(channel, GET_BOOK, REQUEST.into(), &[]).await.unwrap().into()
}

#[tokio::test]
async fn what_is_pushed_is_served_at_start_and_what_is_pushed_later_follows() {
    let shelf = Shelf::open().await;
    let _service = bookstore(async_nats::connect(shelf.nats.url()).await.unwrap()).await;
    let empty = shelf.serve(|_| {}).await.unwrap();
    shelf.push(BOOKSTORE).await.unwrap();
    until("the books are served", async || empty.up("bookstore.v1.Books") == Some(true)).await;
    let gateway = shelf.serve(|_| {}).await.unwrap();
    until("the books are up", async || gateway.up("bookstore.v1.Books") == Some(true)).await;
    for gateway in [&empty, &gateway] {
        assert_eq!(get_book(&channel(gateway).await).await, REPLY);
    }
    shelf.push(&larger()).await.unwrap();
    let channel = channel(&gateway).await;
    let active = shelf.active("books").await.unwrap();
    until("the new rpc is served", async || {
        codec::ask(&channel, FIND_BOOK, REQUEST.into(), &[]).await.is_ok_and(|reply| reply == REPLY)
    })
    .await;
    let health = answer(gateway.http_addr(), "/healthz").await;
    assert!(health.contains(&format!("\"bucket\":{{\"books\":\"{active}\"}}")), "{health}");
    gateway.drain().await;
    empty.drain().await;
}

#[tokio::test]
async fn what_is_pulled_is_what_was_pushed_also_of_an_older_digest() {
    let shelf = Shelf::open().await;
    shelf.push(BOOKSTORE).await.unwrap();
    let first = shelf.active("books").await.unwrap();
    shelf.push(&larger()).await.unwrap();
    let folder: TempDir = tempfile::tempdir().unwrap();
    for digest in [None, Some(first)] {
        let file = folder.path().join("set.binpb");
        let (name, output) = ("books".to_owned(), Some(file.clone()));
        shelf.run(BucketCommand::Pull(Pull { name, output, digest, place: shelf.place() })).await.unwrap();
        let wanted = digest.or(shelf.active("books").await);
        assert_eq!(Some(Digest::of(&std::fs::read(file).unwrap())), wanted);
    }
    let pull = Pull { name: "none".to_owned(), output: None, digest: None, place: shelf.place() };
    let error = shelf.run(BucketCommand::Pull(pull)).await.unwrap_err();
    assert!(error.contains("nothing under the name \"none\""), "{error}");
}

#[tokio::test]
async fn a_push_that_breaks_clients_changes_nothing_unless_it_is_allowed_and_a_gateway_judges_itself() {
    let shelf = Shelf::open().await;
    shelf.push(&larger()).await.unwrap();
    let (before, gateway) = (shelf.active("books").await, shelf.serve(|_| {}).await.unwrap());
    let error = shelf.push(BOOKSTORE).await.unwrap_err();
    assert!(error.contains("the rpc was removed") && error.contains("--allow-breaking"), "{error}");
    shelf
        .push_as("books", BOOKSTORE, |push| (push.allow_breaking, push.dry_run) = (true, true))
        .await
        .unwrap();
    assert_eq!(shelf.active("books").await, before);
    shelf.push_as("books", BOOKSTORE, |push| push.allow_breaking = true).await.unwrap();
    assert_ne!(shelf.active("books").await, before);
    reloaded(&gateway, "breaking", 1).await;
    let health = answer(gateway.http_addr(), "/healthz").await;
    assert!(health.contains("\"refused\":\"breaking\""), "{health}");
    gateway.drain().await;
}

#[tokio::test]
async fn a_push_that_is_wrong_by_itself_or_beside_others_changes_nothing() {
    let shelf = Shelf::open().await;
    for (wrong, text) in [
        (BOOKSTORE.replace("books.get", "books..get"), "books.proto:8"),
        (BOOKSTORE.replace("books.get", "inventory.ledger"), "which is the gateway's own"),
        (BOOKSTORE.replace("package", "pakcage"), "books.proto:2"),
    ] {
        let error = shelf.push(&wrong).await.unwrap_err();
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(shelf.active("books").await, None);
    shelf.push(BOOKSTORE).await.unwrap();
    let error = shelf.push_as("more", BOOKSTORE, |_| {}).await.unwrap_err();
    assert!(error.contains("two sources define this service"), "{error}");
    assert_eq!(shelf.active("more").await, None);
}

#[tokio::test]
async fn of_two_publishers_that_saw_the_same_state_one_is_told_to_look_again() {
    let shelf = Shelf::open().await;
    let deadline = Instant::now() + PATIENCE;
    let seen = shelf.bucket.slot("books", deadline).await.unwrap().revision;
    shelf.push(BOOKSTORE).await.unwrap();
    let before = shelf.active("books").await;
    let digest = shelf.bucket.store(b"another", deadline).await.unwrap();
    let pointer = Pointer { digest, who: "bob".to_owned(), size: 7 };
    let error = shelf.bucket.point("books", &pointer, seen, deadline).await.unwrap_err().to_string();
    assert!(error.contains("somebody else has changed") && error.contains("push again"), "{error}");
    assert_eq!(shelf.active("books").await, before);
}

#[tokio::test]
async fn the_history_says_who_changed_what_and_that_it_was_deleted() {
    let shelf = Shelf::open().await;
    shelf.push(BOOKSTORE).await.unwrap();
    shelf.push_as("books", &larger(), |push| push.by = Some("bob".to_owned())).await.unwrap();
    // What is active already is not pushed again.
    shelf.push(&larger()).await.unwrap();
    let js = async_nats::jetstream::new(async_nats::connect(shelf.nats.url()).await.unwrap());
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    let key = format!("$KV.{BUCKET}.active/books");
    js.publish_with_headers(key, headers, "".into()).await.unwrap().await.unwrap();
    let history = shelf.bucket.history("books", Instant::now() + PATIENCE).await.unwrap();
    let who = history.into_iter().map(|change| match change.target {
        Some(Target::Set(pointer)) => pointer.who,
        _ => "deleted".to_owned(),
    });
    assert_eq!(who.collect::<Vec<_>>(), ["ann", "bob", "deleted"]);
    shelf.push(BOOKSTORE).await.unwrap();
    assert!(shelf.active("books").await.is_some());
}

#[tokio::test]
async fn a_start_without_a_bucket_without_subjects_and_for_anybody_says_what_to_do() {
    let shelf = Shelf::open().await;
    let other = |config: &mut Serve| config.bucket.catalog_bucket = Some(BucketName::parse("other").unwrap());
    let error = shelf.serve(other).await.err().expect("it is refused");
    assert!(error.contains("gateway catalog create --catalog-bucket other"), "{error}");
    let error = shelf.serve(|config| config.bucket.catalog_allow.clear()).await.err().expect("it is refused");
    assert!(error.contains("--catalog-allow 'bookstore.>'"), "{error}");
    let error =
        shelf.serve(|config| config.bucket.allow_anonymous = false).await.err().expect("it is refused");
    assert!(error.contains("--allow-anonymous"), "{error}");
}

#[tokio::test]
async fn without_nats_a_gateway_keeps_what_it_serves_and_follows_later() {
    let mut shelf = Shelf::open().await;
    shelf.push(BOOKSTORE).await.unwrap();
    let gateway = shelf.serve(|_| {}).await.unwrap();
    shelf.nats.stop();
    gateway.reloads().ask();
    reloaded(&gateway, "unavailable", 1).await;
    assert!(gateway.up("bookstore.v1.Books").is_some());
    let mut nats = shelf.nats;
    shelf.nats = tokio::task::spawn_blocking(move || nats.restart().map(|()| nats)).await.unwrap().unwrap();
    until("the publisher is connected", async || shelf.push(&larger()).await.is_ok()).await;
    reloaded(&gateway, "taken", 1).await;
    gateway.drain().await;
}

#[tokio::test]
async fn a_publisher_of_contracts_writes_them_and_a_gateway_reads_them() {
    let system = System::builder().roles().start().await;
    let place = |role| Place {
        catalog_bucket: BucketName::parse(BUCKET).unwrap(),
        nats: roles::options(&system.nats.url(), role),
    };
    let run = async |command| gateway::bucket::run(CatalogCommand { command }).await;
    run(BucketCommand::Create(Create { replicas: 1, place: place("provisioner") })).await.unwrap();
    let (_folder, file) = folder(BOOKSTORE);
    let push = |role| {
        let push = Push {
            name: "books".to_owned(),
            contracts: contracts(file.clone()),
            allow_breaking: false,
            dry_run: false,
            by: None,
            place: place(role),
        };
        BucketCommand::Push(Box::new(push))
    };
    run(push("catalog_publisher")).await.unwrap();
    let shown = Shown { json: true, place: place("catalog_publisher") };
    run(BucketCommand::Status(shown)).await.unwrap();
    let nats = roles::options(&system.nats.url(), "gateway");
    let gateway = Gateway::start(Serve { nats, ..serving("") }).await.unwrap();
    assert!(gateway.up("bookstore.v1.Books").is_some());
    assert_quiet(&system);
    let refused = format!("{:#}", run(push("worker")).await.unwrap_err());
    assert!(refused.contains("role catalog_publisher") && refused.contains("KV_contracts"), "{refused}");
    let reader = RoleClient::of(&system.nats.url(), "gateway").await;
    reader.publish_is_denied("$KV.contracts.active/books", "").await;
    let publisher = RoleClient::of(&system.nats.url(), "catalog_publisher").await;
    for subject in ["books.get", "$JS.API.STREAM.PURGE.KV_contracts", "$JS.API.STREAM.DELETE.OBJ_contracts"] {
        publisher.publish_is_denied(subject, "").await;
    }
    gateway.drain().await;
}
