//! Both readers against a real nats-server, on a stream from which entries can be removed.

use async_nats::jetstream::{self, stream::Config};
use local_nats::Server;

use super::*;
use crate::Options;

const STREAM: &str = "EVENTS";
const LIMIT: Duration = Duration::from_secs(20);

struct Fixture {
    _server: Server,
    link: Connection,
    stream: jetstream::stream::Stream,
}

impl Fixture {
    /// A stream with entries 1 to `last`, each with its number as payload.
    async fn with(last: u64) -> Fixture {
        let server = tokio::task::spawn_blocking(Server::start).await.unwrap().unwrap();
        let link = Connection::connect(&Options::at(server.url()), "test").await.unwrap();
        let config =
            Config { name: STREAM.to_owned(), subjects: vec!["events".to_owned()], ..Config::default() };
        let stream = jetstream::new(link.client().clone()).create_stream(config).await.unwrap();
        let fixture = Fixture { _server: server, link, stream };
        for number in 1..=last {
            fixture.append(number).await;
        }
        fixture
    }

    async fn append(&self, number: u64) {
        let store = Store::new(self.link.clone(), STREAM);
        let (payload, deadline) = (number.to_string().into(), Instant::now() + LIMIT);
        let expect = crate::Expect::Last(number - 1);
        store.append("events", HeaderMap::new(), payload, expect, deadline).await.unwrap();
    }

    async fn lose(&self, sequence: u64) {
        assert!(self.stream.delete_message(sequence).await.unwrap());
    }

    fn pulls(&self, shape: EntryShape, from: u64) -> StreamReader {
        StreamReader::new(self.link.clone(), STREAM, shape, from)
    }
}

/// Reads until this sequence, and checks that no entry is left out.
async fn read(reader: &mut StreamReader, from: u64, upto: u64) -> Vec<StreamEntry> {
    let mut entries = Vec::new();
    while entries.last().is_none_or(|last: &StreamEntry| last.sequence < upto) {
        timeout(LIMIT, reader.fill(&mut entries)).await.expect("nothing comes");
    }
    let sequences: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, (from..=upto).collect::<Vec<_>>());
    entries
}

async fn pushed(reader: &mut PushReader) -> (u64, String) {
    let next = timeout(LIMIT, reader.next()).await.expect("nothing comes");
    let (sequence, message) = next.unwrap().expect("the consumer lives");
    (sequence, String::from_utf8(message.payload.to_vec()).unwrap())
}

#[tokio::test]
async fn a_reader_that_pulls_gets_every_entry_once_and_then_what_is_appended() {
    let fixture = Fixture::with(5).await;
    let mut reader = fixture.pulls(EntryShape::Whole, 2);
    for entry in read(&mut reader, 2, 5).await {
        assert_eq!(entry.message.unwrap().payload, entry.sequence.to_string());
    }
    fixture.append(6).await;
    read(&mut reader, 6, 6).await;
    reader.close().await;
    assert_eq!(fixture.stream.get_info().await.unwrap().state.consumer_count, 0);
}

#[tokio::test]
async fn a_reader_of_headers_gets_no_payload() {
    let fixture = Fixture::with(3).await;
    let entries = read(&mut fixture.pulls(EntryShape::Headers, 1), 1, 3).await;
    assert!(entries.into_iter().all(|entry| entry.message.unwrap().payload.is_empty()));
}

#[tokio::test]
async fn an_entry_that_the_leader_has_lost_comes_without_its_message() {
    let fixture = Fixture::with(6).await;
    for sequence in [1, 3, 4] {
        fixture.lose(sequence).await;
    }
    let entries = read(&mut fixture.pulls(EntryShape::Whole, 2), 2, 6).await;
    let there: Vec<bool> = entries.iter().map(|entry| entry.message.is_some()).collect();
    assert_eq!(there, [true, false, false, true, true]);
}

#[tokio::test]
async fn a_reader_to_which_entries_are_pushed_hands_over_what_follows_a_purge() {
    let fixture = Fixture::with(5).await;
    fixture.stream.purge().sequence(4).await.unwrap();
    let mut reader = PushReader::open(&fixture.link, STREAM, 1).await.unwrap();
    assert_eq!(pushed(&mut reader).await, (4, "4".to_owned()));
    assert_eq!(pushed(&mut reader).await, (5, "5".to_owned()));
    fixture.append(6).await;
    assert_eq!(pushed(&mut reader).await, (6, "6".to_owned()));
}

#[tokio::test]
async fn both_readers_number_entries_alike() {
    let fixture = Fixture::with(3).await;
    let mut reader = PushReader::open(&fixture.link, STREAM, 0).await.unwrap();
    for entry in read(&mut fixture.pulls(EntryShape::Whole, 1), 1, 3).await {
        let payload = String::from_utf8(entry.message.unwrap().payload.to_vec()).unwrap();
        assert_eq!(pushed(&mut reader).await, (entry.sequence, payload));
    }
}
