//! A bucket of contracts in which something is wrong: it is refused and told, and what is served stays.

use async_nats::jetstream;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use catalog_bucket::{Digest, Pointer};
use gateway::bucket::Push;
use gateway::config::Serve;
use serde_json::json;
use tokio::time::Instant;

use crate::bucket::{BUCKET, Shelf, contracts, reloaded};
use crate::contracts::{BOOKSTORE, GET_BOOK, REPLY, REQUEST, bookstore, channel, folder};
use crate::harness::codec;
use crate::harness::http::answer;
use crate::harness::system::{PATIENCE, until};

/// Who may write the bucket, and does so without the command.
struct Writer(jetstream::Context);

impl Writer {
    async fn of(shelf: &Shelf) -> Writer {
        Writer(jetstream::new(async_nats::connect(shelf.nats.url()).await.unwrap()))
    }

    async fn write(&self, subject: String, payload: impl Into<Vec<u8>>) {
        self.0.publish(subject, payload.into().into()).await.unwrap().await.unwrap();
    }

    async fn point(&self, payload: impl Into<Vec<u8>>) {
        self.write(format!("$KV.{BUCKET}.active/books"), payload).await;
    }

    /// An object of this digest, with other contents and this metadata; the name points at it.
    async fn object(&self, digest: Digest, metadata: &str) {
        let name = URL_SAFE.encode(digest.to_string());
        self.write(format!("$O.{BUCKET}.M.{name}"), metadata.to_owned()).await;
        self.point(pointer(digest)).await;
    }
}

fn pointer(digest: Digest) -> Vec<u8> {
    json!({"digest": digest, "who": "eve", "size": 4}).to_string().into()
}

/// Metadata of an object with this size, whose contents are under `evil`.
fn metadata(size: u64) -> String {
    json!({"name": "x", "bucket": BUCKET, "nuid": "evil", "size": size, "chunks": 1, "digest": "SHA-256="})
        .to_string()
}

#[tokio::test]
async fn what_is_damaged_is_told_and_what_is_served_stays() {
    let shelf = Shelf::open().await;
    shelf.push(BOOKSTORE).await.unwrap();
    let _service = bookstore(async_nats::connect(shelf.nats.url()).await.unwrap()).await;
    let (gateway, writer) = (shelf.serve(|_| {}).await.unwrap(), Writer::of(&shelf).await);
    until("the books are up", async || gateway.up("bookstore.v1.Books") == Some(true)).await;
    let channel = channel(&gateway).await;
    writer.write(format!("$O.{BUCKET}.C.evil"), "evil").await;
    let digest = |number: u8| Digest::of(&[number]);
    let mut count = 0;
    for (number, text) in [
        "it is no pointer",
        "there is no such set",
        "another digest",
        "more than 4 MiB",
        "it has 4 of 100 bytes",
        "its metadata cannot be read",
        "names no contents",
    ]
    .into_iter()
    .enumerate()
    {
        let digest = digest(u8::try_from(number).unwrap());
        match number {
            0 => writer.point("nonsense").await,
            1 => writer.point(pointer(digest)).await,
            2 => writer.object(digest, &metadata(4)).await,
            3 => writer.object(digest, &metadata(5 << 20)).await,
            4 => writer.object(digest, &metadata(100)).await,
            5 => writer.object(digest, "nonsense").await,
            _ => writer.object(digest, &metadata(4).replace("evil", ">")).await,
        }
        let error = shelf.bucket.active(Instant::now() + PATIENCE).await.unwrap_err().to_string();
        assert!(error.contains(text) && error.starts_with("active/books"), "{error}");
        gateway.reloads().ask();
        count += 1;
        reloaded(&gateway, "invalid", count).await;
        let reply = codec::ask(&channel, GET_BOOK, REQUEST.into(), &[]).await.unwrap();
        assert_eq!(reply, REPLY, "{text}");
    }
    let health = answer(gateway.http_addr(), "/healthz").await;
    assert!(health.contains("\"refused\":\"invalid\""), "{health}");
    let error = shelf.push(BOOKSTORE).await.unwrap_err();
    assert!(error.contains("--allow-breaking replaces it"), "{error}");
    shelf.push_as("books", BOOKSTORE, |push| push.allow_breaking = true).await.unwrap();
    reloaded(&gateway, "unchanged", 1).await;
    gateway.drain().await;
}

#[tokio::test]
async fn sets_that_are_no_contract_or_use_other_subjects_are_refused_while_serving_and_at_start() {
    let shelf = Shelf::open().await;
    shelf.push(BOOKSTORE).await.unwrap();
    let gateway = shelf.serve(|_| {}).await.unwrap();
    let other = BOOKSTORE.replace("books.get", "secrets.get").replace("bookstore.v1", "secrets.v1");
    let (_folder, file) = folder(&other);
    let secrets = file.with_file_name("secrets.proto");
    std::fs::rename(file, &secrets).unwrap();
    shelf.push_as("secrets", "", |push| push.contracts = contracts(secrets)).await.unwrap();
    reloaded(&gateway, "invalid", 1).await;
    assert_eq!(gateway.up("secrets.v1.Books"), None);
    let error = shelf.serve(|_| {}).await.err().expect("it is refused");
    assert!(
        error.contains("active/secrets: ") && error.contains("outside of what is allowed: books.>"),
        "{error}"
    );
    let both = |config: &mut Serve| config.bucket.catalog_allow.push("*.get".to_owned());
    shelf.serve(both).await.unwrap().drain().await;
    let deadline = Instant::now() + PATIENCE;
    let digest = shelf.bucket.store(b"garbage", deadline).await.unwrap();
    let garbage = Pointer { digest, who: "eve".to_owned(), size: 7 };
    shelf.bucket.point("garbage", &garbage, 0, deadline).await.unwrap();
    let error = shelf.serve(both).await.err().expect("it is refused");
    assert!(error.contains("active/garbage: "), "{error}");
    gateway.drain().await;
}

/// Makes this the active set, as a publisher does who checks nothing.
async fn point(shelf: &Shelf, proto: &str) {
    let deadline = Instant::now() + PATIENCE;
    let (_folder, file) = folder(proto);
    let sources = catalog_sources::Options { proto: vec![file], ..Default::default() };
    let set = sources.sets().unwrap().remove(0);
    let revision = shelf.bucket.slot("books", deadline).await.unwrap().revision;
    let digest = shelf.bucket.store(&set, deadline).await.unwrap();
    let pointer = Pointer { digest, who: "eve".to_owned(), size: set.len() as u64 };
    shelf.bucket.point("books", &pointer, revision, deadline).await.unwrap();
}

#[tokio::test]
async fn no_pattern_lets_a_contract_of_a_bucket_use_what_belongs_to_the_gateway() {
    let shelf = Shelf::open().await;
    let all = |config: &mut Serve| config.bucket.catalog_allow = vec![">".to_owned()];
    for subject in ["inventory.ledger", "order_created", "reserve_inventory", "orders.event.{book_id}.x"] {
        point(&shelf, &BOOKSTORE.replace("books.get", subject)).await;
        let error = shelf.serve(all).await.err().expect("it is refused");
        assert!(error.contains("which is the gateway's own"), "{subject}: {error}");
    }
}

#[tokio::test]
async fn a_contract_of_a_bucket_neither_opens_itself_nor_is_internal_nor_takes_the_order_systems_names() {
    let shelf = Shelf::open().await;
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), crate::reload::key(BOOKSTORE, "books.read").1).unwrap();
    let known = |config: &mut Serve| {
        config.bucket.allow_anonymous = false;
        config.access.api_keys = Some(list.path().into());
    };
    for (of, by, text) in [
        ("scope: \"books.read\"", "public: true", "--allow-anonymous is not given"),
        (
            "queue_group: \"books\"",
            "queue_group: \"books\" internal: true",
            "only what is compiled in may be",
        ),
        ("bookstore.v1", "orders.v1", "is one of the order system"),
    ] {
        let proto = BOOKSTORE.replace(of, by).replace("service Books", "service OrderService");
        point(&shelf, &proto).await;
        let error = shelf.serve(known).await.err().expect("it is refused");
        assert!(error.contains(text) && error.contains("active/books: "), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_set_of_many_chunks_is_stored_once_whoever_else_stores_it_or_has_begun_to() {
    let (shelf, deadline) = (Shelf::open().await, Instant::now() + PATIENCE);
    let set: Vec<u8> = (0..300_000_u32).flat_map(|number| number.to_be_bytes()).collect();
    let digest = Digest::of(&set);
    Writer::of(&shelf).await.write(format!("$O.{BUCKET}.C.{digest}"), &set[..100_000]).await;
    let store = || shelf.bucket.store(&set, deadline);
    let (one, other, third) = tokio::join!(store(), store(), store());
    assert_eq!((one.unwrap(), other.unwrap(), third.unwrap()), (digest, digest, digest));
    assert_eq!(shelf.bucket.set(&digest, deadline).await.unwrap(), set);
    let js = Writer::of(&shelf).await.0;
    let mut stream = js.get_stream(format!("OBJ_{BUCKET}")).await.unwrap();
    // The rest of 1,100,000 bytes in chunks of 128 KiB, what was there before, and the metadata.
    assert_eq!(stream.info().await.unwrap().state.messages, 9 + 1 + 1);
    let error = shelf.bucket.store(&vec![0; (4 << 20) + 1], deadline).await.unwrap_err().to_string();
    assert!(error.contains("at most 4 MiB"), "{error}");
}

#[tokio::test]
async fn a_push_beside_contracts_that_are_damaged_works() {
    let (shelf, change) = (Shelf::open().await, |_: &mut Push| {});
    Writer::of(&shelf).await.write(format!("$KV.{BUCKET}.active/other"), "nonsense").await;
    shelf.push_as("books", BOOKSTORE, change).await.unwrap();
    assert!(shelf.active("books").await.is_some());
}
