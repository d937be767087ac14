//! Streams of messages from a client to a stream: all are stored in their order, or the failure says exactly which.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::stream;
use futures_util::{Stream, StreamExt as _};
use server::auth::apikey;
use server::config::access::Access;
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::harness::shelf::{Book, Loaded, Shelf, book, contract, stored};
use crate::harness::status::assert_failure;
use crate::harness::system::until;

const LOAD: &str = "/shelf.v1.Shelf/Load";
const RESTOCK: &str = "/shelf.v1.Shelf/Restock";
const PUT: &str = "/shelf.v1.Shelf/Put";

/// `t-1`, `t-2`, and so on.
fn titles(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("t-{number}")).collect()
}

/// Books with these titles.
fn volumes(count: usize) -> impl Stream<Item = Book> + Send + 'static {
    futures_util::stream::iter(titles(count)).map(|title| book(&title, &title))
}

fn loaded(count: u64) -> Loaded {
    Loaded { stored: count, sequence: count, stream: "SHELF".to_owned() }
}

/// What a failure tells of the stream: the stored, those stored beyond, and the unknown.
#[track_caller]
fn told(result: Result<Loaded, Status>, code: Code, reason: &str, delivered: &str) -> [String; 3] {
    let details = assert_failure(result, code, reason, delivered);
    let metadata: BTreeMap<_, _> = details.error_info().unwrap().metadata.clone().into_iter().collect();
    ["stored", "stored_beyond", "unknown"].map(|key| metadata[key].clone())
}

#[tokio::test]
async fn a_thousand_messages_are_all_stored_in_their_order() {
    let shelf = Shelf::open().await;
    assert_eq!(shelf.load(LOAD, volumes(1_000), "60S").await.unwrap(), loaded(1_000));
    assert_eq!(shelf.titles().await, titles(1_000));
    assert_eq!(shelf.load(LOAD, volumes(0), "60S").await.unwrap(), Loaded::default());
    shelf.drain().await;
}

#[tokio::test]
async fn messages_with_ids_of_the_client_are_stored_once_when_it_sends_them_again() {
    let shelf = Shelf::open().await;
    assert_eq!(shelf.load(RESTOCK, volumes(10), "20S").await.unwrap(), loaded(10));
    assert_eq!(shelf.load(RESTOCK, volumes(12), "20S").await.unwrap(), loaded(12));
    assert_eq!(shelf.titles().await, titles(12));
    // The ids of another route are others.
    assert_eq!(shelf.call(PUT, book("t-1", "t-13")).await.unwrap(), stored(13, false));
    shelf.drain().await;
}

#[tokio::test]
async fn a_message_that_is_invalid_ends_the_stream_behind_those_before_it() {
    let shelf = Shelf::open().await;
    let wrong = |wrong: Book| volumes(7).chain(futures_util::stream::iter([wrong])).chain(volumes(3));
    let subject = Book { shelf: "a.>".to_owned(), ..book("x", "x") };
    let refused = shelf.load(LOAD, wrong(subject), "20S").await;
    assert!(refused.as_ref().is_err_and(|status| status.message().contains("message 8")), "{refused:?}");
    assert_eq!(told(refused, Code::InvalidArgument, "INVALID_REQUEST", "yes"), ["7", "0", "0"]);
    assert_eq!(shelf.titles().await, titles(7));
    let refused = shelf.load(RESTOCK, futures_util::stream::iter([book("", "no id")]), "20S").await;
    assert_eq!(told(refused, Code::InvalidArgument, "INVALID_REQUEST", "no"), ["0", "0", "0"]);
    let large = book("x", &"x".repeat(5 << 20));
    let refused = shelf.load(RESTOCK, wrong(large), "20S").await;
    assert_eq!(told(refused, Code::ResourceExhausted, "PAYLOAD_TOO_LARGE", "yes"), ["7", "0", "0"]);
    assert_eq!(shelf.titles().await.len(), 14);
    shelf.drain().await;
}

#[tokio::test]
async fn a_stream_that_becomes_full_says_how_much_it_has() {
    let shelf = Shelf::bare().await;
    let discard = stream::DiscardPolicy::New;
    shelf.stream(stream::Config { max_messages: 5, discard, ..Default::default() }).await;
    let full = shelf.load(LOAD, volumes(500), "20S").await;
    assert_eq!(told(full, Code::ResourceExhausted, "STORAGE_FULL", "yes"), ["5", "0", "0"]);
    assert_eq!(shelf.titles().await, titles(5));
    shelf.drain().await;
}

#[tokio::test]
async fn without_a_stream_nothing_is_stored_and_the_failure_says_so() {
    let shelf = Shelf::bare().await;
    let missing = shelf.load(LOAD, volumes(3), "20S").await;
    assert_eq!(told(missing, Code::Unavailable, "STORAGE_UNAVAILABLE", "no"), ["0", "0", "0"]);
    shelf.drain().await;
}

#[tokio::test]
async fn a_client_whose_time_is_over_is_told_what_is_stored() {
    let shelf = Shelf::open().await;
    let silent = volumes(10).chain(futures_util::stream::pending());
    let late = shelf.load(LOAD, silent, "3S").await;
    assert_eq!(told(late, Code::DeadlineExceeded, "DEADLINE", "yes"), ["10", "0", "0"]);
    assert_eq!(shelf.titles().await, titles(10));
    shelf.drain().await;
}

#[tokio::test]
async fn a_client_that_leaves_has_stored_what_it_had_sent_until_then_and_no_more() {
    let shelf = Shelf::open().await;
    let silent = volumes(100).chain(futures_util::stream::pending());
    tokio::select! {
        ended = shelf.load(LOAD, silent, "60S") => panic!("{ended:?}"),
        () = until("all are stored", async || shelf.titles().await.len() == 100) => {}
    }
    // Waits for what is in flight.
    shelf.drain().await;
    assert_eq!(shelf.titles().await, titles(100));
}

#[tokio::test]
async fn a_drain_ends_a_stream_and_says_what_is_stored() {
    let shelf = Shelf::open().await;
    let silent = volumes(100).chain(futures_util::stream::pending());
    let drained = async {
        until("all are stored", async || shelf.titles().await.len() == 100).await;
        shelf.drain().await;
    };
    let (ended, ()) = tokio::join!(shelf.load(LOAD, silent, "60S"), drained);
    assert_eq!(told(ended, Code::Unavailable, "DRAINING", "yes"), ["100", "0", "0"]);
}

#[tokio::test]
async fn a_stream_ends_when_the_key_of_its_client_is_taken_off_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let key = apikey::new(&contract(), "till", &["books.write".to_owned()], None).unwrap();
    std::fs::write(&file, &key.line).unwrap();
    let access = Access { api_keys: Some(file.clone()), ..Access::default() };
    let shelf = Shelf::with(local_nats::Options::default(), |config| config.access = access).await;
    shelf.stream(stream::Config::default()).await;
    let silent = volumes(10).chain(futures_util::stream::pending());
    assert_failure(shelf.load(LOAD, volumes(1), "20S").await, Code::Unauthenticated, "UNAUTHENTICATED", "no");
    let removed = async {
        until("all are stored", async || shelf.titles().await.len() == 10).await;
        std::fs::write(&file, "# nobody\n").unwrap();
    };
    let metadata = [("x-api-key", key.key.as_str()), ("grpc-timeout", "60S")];
    let (ended, ()) = tokio::join!(shelf.load_with(LOAD, silent, &metadata), removed);
    assert_eq!(told(ended, Code::Unauthenticated, "UNAUTHENTICATED", "yes"), ["10", "0", "0"]);
    assert_eq!(shelf.titles().await, titles(10));
    shelf.drain().await;
}

#[tokio::test]
async fn a_stream_goes_on_behind_a_lost_connection_and_stores_each_message_once() {
    let shelf = Shelf::open().await;
    shelf.proxy.mute_after("\"t-200\"");
    let (told, ()) = tokio::join!(shelf.load(LOAD, volumes(500), "60S"), shelf.cut_after(200));
    assert_eq!(told.unwrap(), loaded(500));
    assert_eq!(shelf.titles().await, titles(500));
    shelf.drain().await;
}

#[tokio::test]
async fn a_stream_whose_connection_does_not_come_back_says_which_messages_are_unknown() {
    let shelf = Shelf::open().await;
    shelf.proxy.mute_after("\"t-200\"");
    let cut = async {
        shelf.proxy.muted().await;
        until("it is stored", async || shelf.titles().await.len() >= 200).await;
        shelf.proxy.cut();
    };
    let (ended, ()) = tokio::join!(shelf.load(LOAD, volumes(500), "5S"), cut);
    let [stored, beyond, unknown] = told(ended, Code::DeadlineExceeded, "DEADLINE", "unknown");
    let (first, last) = unknown.split_once('-').expect("a range");
    let [stored, first, last] = [stored.as_str(), first, last].map(|number| number.parse::<usize>().unwrap());
    let there = shelf.titles().await;
    assert_eq!(there, titles(there.len()), "in their order");
    assert_eq!((beyond.as_str(), first), ("0", stored + 1));
    assert!((stored..=last).contains(&there.len()), "{stored} {unknown} {}", there.len());
}

#[tokio::test]
async fn a_stream_that_stores_nothing_holds_its_client_back() {
    let shelf = Shelf::open().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let large = move |title: String| {
        counted.fetch_add(1, Ordering::Relaxed);
        // A title of 100,000 characters.
        book(&title, &title.repeat(100_000 / title.len()))
    };
    let large = futures_util::stream::iter(titles(1_000)).map(large);
    shelf.proxy.hold();
    let held = async {
        let stands = async || {
            let before = sent.load(Ordering::Relaxed);
            sleep(Duration::from_millis(300)).await;
            before > 0 && sent.load(Ordering::Relaxed) == before
        };
        until("the client is held back", stands).await;
        let ahead = sent.load(Ordering::Relaxed);
        shelf.proxy.restore();
        ahead
    };
    let (loaded, ahead) = tokio::join!(shelf.load(LOAD, large, "60S"), held);
    assert!(ahead < 100, "{ahead} messages of 100 kB were taken, and none was stored");
    assert_eq!(loaded.unwrap().stored, 1_000);
    assert_eq!(sent.load(Ordering::Relaxed), 1_000);
    shelf.drain().await;
}
