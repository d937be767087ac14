//! Messages that a stream stores, by routes of a contract alone: what an answer says is what the stream holds.

use std::time::Duration;

use async_nats::jetstream::stream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::shelf::{Book, Shelf, Stored, book, revised, stored};
use crate::harness::status::{assert_failure, assert_retryable};
use crate::harness::system::until;

const PUT: &str = "/shelf.v1.Shelf/Put";
const SET: &str = "/shelf.v1.Shelf/Set";
const NOTE: &str = "/shelf.v1.Shelf/Note";

/// The sequence that a conflict tells.
#[track_caller]
fn conflict(result: Result<Stored, Status>) -> String {
    let details = assert_failure(result, Code::Aborted, "SEQUENCE_CONFLICT", "no");
    details.error_info().unwrap().metadata["sequence"].clone()
}

#[tokio::test]
async fn a_message_is_stored_once_however_often_its_id_is_sent() {
    let shelf = Shelf::open().await;
    assert_eq!(shelf.call(PUT, book("b-1", "Emma")).await.unwrap(), stored(1, false));
    assert_eq!(shelf.call(PUT, book("b-2", "Ulysses")).await.unwrap(), stored(2, false));
    assert_eq!(shelf.call(PUT, book("b-1", "Emma")).await.unwrap(), stored(1, true));
    assert_eq!(shelf.call(NOTE, book("b-1", "a note")).await.unwrap(), stored(3, false), "no id");
    assert_eq!(shelf.titles().await, ["Emma", "Ulysses", "a note"]);
    shelf.drain().await;
}

#[tokio::test]
async fn a_revision_is_stored_only_behind_the_one_that_the_caller_knows() {
    let shelf = Shelf::open().await;
    assert_eq!(shelf.call(SET, revised(Some(0), "first")).await.unwrap(), stored(1, false));
    assert_eq!(conflict(shelf.call(SET, revised(Some(0), "another first")).await), "1");
    assert_eq!(conflict(shelf.call(SET, revised(Some(7), "from the future")).await), "1");
    assert_eq!(shelf.call(SET, revised(Some(1), "second")).await.unwrap(), stored(2, false));
    assert_eq!(shelf.call(SET, revised(None, "whatever there is")).await.unwrap(), stored(3, false));
    let elsewhere = Book { shelf: "low".into(), ..revised(Some(0), "its own subject") };
    assert_eq!(shelf.call(SET, elsewhere).await.unwrap(), stored(4, false));
    assert_eq!(shelf.titles().await, ["first", "second", "whatever there is", "its own subject"]);
    shelf.drain().await;
}

#[tokio::test]
async fn a_message_without_its_id_or_with_one_that_is_too_long_is_refused_and_not_stored() {
    let shelf = Shelf::open().await;
    for id in ["", &"x".repeat(257)] {
        let refused = shelf.call(PUT, book(id, "Emma")).await;
        let details = assert_failure(refused, Code::InvalidArgument, "INVALID_REQUEST", "no");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "book_id");
    }
    assert!(shelf.titles().await.is_empty());
    let strange = "Zo\u{eb} 100 %\r\nNats-Rollup: all";
    assert_eq!(shelf.call(PUT, book(strange, "Emma")).await.unwrap(), stored(1, false));
    assert_eq!(shelf.call(PUT, book(strange, "Emma")).await.unwrap(), stored(1, true));
    assert_eq!(shelf.call(PUT, book("Zo? 100 %??Nats-Rollup: all", "Emma")).await.unwrap(), stored(2, false));
    shelf.drain().await;
}

#[tokio::test]
async fn without_the_stream_of_the_route_nothing_is_stored_and_the_failure_says_so() {
    let shelf = Shelf::bare().await;
    let missing = shelf.call(NOTE, book("", "Emma")).await;
    assert_retryable(&assert_failure(missing, Code::Unavailable, "STORAGE_UNAVAILABLE", "no"));
    let (name, subjects) = ("OTHER".to_owned(), vec!["shelf.>".to_owned()]);
    let other = stream::Config { name, subjects, ..Default::default() };
    shelf.jetstream.create_stream(other).await.unwrap();
    let refused = shelf.call(PUT, book("b-1", "Emma")).await;
    assert!(refused.as_ref().is_err_and(|status| status.message().contains("SHELF")), "{refused:?}");
    assert_failure(refused, Code::Unavailable, "STORAGE_UNAVAILABLE", "no");
    // This route names no stream.
    assert_eq!(shelf.call(NOTE, book("", "a note")).await.unwrap().stream, "OTHER");
    assert_eq!(shelf.jetstream.get_stream("OTHER").await.unwrap().cached_info().state.messages, 1);
    shelf.drain().await;
}

#[tokio::test]
async fn the_permissions_of_the_routes_are_enough_to_store_and_to_find_out_what_was_stored() {
    let shelf = Shelf::permitted().await;
    shelf.call(PUT, book("b-1", "Emma")).await.unwrap();
    shelf.proxy.mute_after("PUB shelf.top.book ");
    let (told, ()) = tokio::join!(shelf.call(PUT, book("b-2", "Ulysses")), shelf.cut_after(2));
    assert_eq!(told.unwrap(), stored(2, true));
    shelf.call(SET, revised(Some(0), "first")).await.unwrap();
    shelf.proxy.mute_after("PUB shelf.top.revision ");
    let (told, ()) = tokio::join!(shelf.call(SET, revised(Some(3), "second")), shelf.cut_after(4));
    assert_eq!(told.unwrap(), stored(4, false));
    shelf.drain().await;
}

#[tokio::test]
async fn a_stream_that_is_full_refuses_messages_and_keeps_what_it_has() {
    let shelf = Shelf::bare().await;
    let discard = stream::DiscardPolicy::New;
    shelf.stream(stream::Config { max_messages: 1, discard, ..Default::default() }).await;
    assert_eq!(shelf.call(PUT, book("b-1", "Emma")).await.unwrap(), stored(1, false));
    let full = shelf.call(PUT, book("b-2", "Ulysses")).await;
    assert_failure(full, Code::ResourceExhausted, "STORAGE_FULL", "no");
    assert_eq!(shelf.titles().await, ["Emma"]);
    shelf.drain().await;
}

#[tokio::test]
async fn a_message_whose_acknowledgement_is_lost_is_sent_again_and_stored_once() {
    let shelf = Shelf::open().await;
    shelf.call(PUT, book("b-1", "Emma")).await.unwrap();
    shelf.proxy.mute_after("PUB shelf.top.book ");
    let (told, ()) = tokio::join!(shelf.call(PUT, book("b-2", "Ulysses")), shelf.cut_after(2));
    assert_eq!(told.unwrap(), stored(2, true));
    assert_eq!(shelf.titles().await, ["Emma", "Ulysses"]);
    shelf.drain().await;
}

#[tokio::test]
async fn a_revision_whose_acknowledgement_is_lost_is_found_and_is_no_conflict() {
    let shelf = Shelf::open().await;
    shelf.call(SET, revised(Some(0), "first")).await.unwrap();
    shelf.proxy.mute_after("PUB shelf.top.revision ");
    let (told, ()) = tokio::join!(shelf.call(SET, revised(Some(1), "second")), shelf.cut_after(2));
    assert_eq!(told.unwrap(), stored(2, false));
    assert_eq!(shelf.titles().await, ["first", "second"]);
    shelf.drain().await;
}

#[tokio::test]
async fn a_revision_that_may_have_been_stored_and_removed_again_is_no_conflict_either() {
    let shelf = Shelf::bare().await;
    shelf.stream(stream::Config { max_messages_per_subject: 1, ..Default::default() }).await;
    shelf.call(SET, revised(Some(0), "first")).await.unwrap();
    shelf.proxy.mute_after("PUB shelf.top.revision ");
    let overtaken = async {
        shelf.proxy.muted().await;
        until("it is stored", async || shelf.titles().await == ["second"]).await;
        shelf
            .jetstream
            .publish("shelf.top.revision", r#"{"title":"third"}"#.into())
            .await
            .unwrap()
            .await
            .unwrap();
        shelf.proxy.reset();
    };
    let (told, ()) = tokio::join!(shelf.call(SET, revised(Some(1), "second")), overtaken);
    assert_failure(told, Code::Unavailable, "OUTCOME_UNKNOWN", "unknown");
    assert_eq!(shelf.titles().await, ["third"]);
    shelf.drain().await;
}

#[tokio::test]
async fn a_message_without_an_id_is_not_sent_again_and_may_be_stored() {
    let shelf = Shelf::open().await;
    shelf.proxy.mute_after("PUB shelf.top.note ");
    let (told, ()) = tokio::join!(shelf.call(NOTE, book("", "a note")), shelf.cut_after(1));
    assert_failure(told, Code::Unavailable, "NATS_DISCONNECTED", "unknown");
    assert_eq!(shelf.titles().await, ["a note"]);
    shelf.drain().await;
}

#[tokio::test]
async fn a_message_is_not_sent_again_when_the_stream_may_have_forgotten_its_id() {
    let shelf = Shelf::bare().await;
    // An attempt may take longer.
    let duplicate_window = Duration::from_millis(500);
    shelf.stream(stream::Config { duplicate_window, ..Default::default() }).await;
    shelf.proxy.mute_after("PUB shelf.top.book ");
    let (told, ()) = tokio::join!(shelf.call(PUT, book("b-1", "Emma")), shelf.cut_after(1));
    let status = told.unwrap_err();
    let info = status.get_error_details().error_info().unwrap().clone();
    assert_eq!(info.metadata["delivered"], "unknown", "{status:?}");
    assert_eq!(shelf.titles().await, ["Emma"]);
    shelf.drain().await;
}
