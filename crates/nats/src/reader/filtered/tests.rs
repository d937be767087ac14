//! The reader against a real nats-server, on a stream that others remove from.

use std::time::Duration;

use async_nats::jetstream::{self, stream::Config, stream::Stream};
use local_nats::Server;
use tokio::time::timeout;

use super::*;
use crate::Options;

const LIMIT: Duration = Duration::from_secs(20);

struct Fixture {
    server: Server,
    link: Connection,
    stream: Stream,
}

impl Fixture {
    async fn start() -> Fixture {
        let server = tokio::task::spawn_blocking(Server::start).await.unwrap().unwrap();
        let link = Connection::connect(&Options::at(server.url()), "test").await.unwrap();
        let stream = create(&link).await;
        Fixture { server, link, stream }
    }

    /// Stores this many messages, in turns for one subject and another.
    async fn store(&self, count: usize) {
        let context = jetstream::new(self.link.client().clone());
        for number in 0..count {
            let subject = ["events.one", "events.two"][number % 2];
            context.publish(subject, "{}".into()).await.unwrap().await.unwrap();
        }
    }

    /// Reads what the first subject has after a sequence.
    async fn open(&self, after: u64) -> Result<FilteredReader, FilteredError> {
        let deadline = Instant::now() + LIMIT;
        let StreamDescription { identity, .. } =
            StreamDescription::read(&self.link, "EVENTS", deadline).await.unwrap();
        self.open_as(identity, after).await
    }

    async fn open_as(&self, identity: String, after: u64) -> Result<FilteredReader, FilteredError> {
        let (start, deadline) = (Start { identity, after }, Instant::now() + LIMIT);
        FilteredReader::open(self.link.clone(), "EVENTS".into(), "events.one".into(), start, deadline).await
    }
}

async fn create(link: &Connection) -> Stream {
    let config =
        Config { name: "EVENTS".to_owned(), subjects: vec!["events.*".to_owned()], ..Config::default() };
    jetstream::new(link.client().clone()).create_stream(config).await.unwrap()
}

/// Reads until this sequence.
async fn read(reader: &mut FilteredReader, upto: u64) -> Vec<u64> {
    let mut entries = Vec::new();
    while entries.last().is_none_or(|last: &StreamEntry| last.sequence < upto) {
        timeout(LIMIT, reader.fill(&mut entries)).await.expect("something comes").unwrap();
    }
    entries.iter().map(|entry| entry.sequence).collect()
}

#[tokio::test]
async fn it_gets_what_is_on_its_subject_once_and_knows_when_there_is_no_more() {
    let fixture = Fixture::start().await;
    fixture.store(1_000).await;
    let mut reader = fixture.open(100).await.unwrap();
    assert!(!reader.is_caught_up());
    assert_eq!(read(&mut reader, 999).await, (101..1_000).step_by(2).collect::<Vec<_>>());
    assert!(reader.is_caught_up());
    fixture.store(2).await;
    assert_eq!(read(&mut reader, 1_001).await, [1_001]);
    assert!(fixture.open(1_001).await.unwrap().is_caught_up());
    reader.close().await;
}

#[tokio::test]
async fn a_server_that_was_away_leaves_nothing_out_and_repeats_nothing() {
    let mut fixture = Fixture::start().await;
    fixture.store(10).await;
    let mut reader = fixture.open(0).await.unwrap();
    assert_eq!(read(&mut reader, 9).await, [1, 3, 5, 7, 9]);
    fixture.server.kill();
    fixture.server.restart().unwrap();
    let connected = async {
        while StreamDescription::read(&fixture.link, "EVENTS", Instant::now() + ATTEMPT).await.is_err() {
            sleep(BACKOFF).await;
        }
    };
    timeout(LIMIT, connected).await.expect("the server is back");
    fixture.store(4).await;
    assert_eq!(read(&mut reader, 13).await, [11, 13]);
}

#[tokio::test]
async fn a_purge_that_overtakes_it_ends_it_and_one_behind_it_does_not() {
    let fixture = Fixture::start().await;
    fixture.store(2_000).await;
    let (mut slow, mut quick) = (fixture.open(0).await.unwrap(), fixture.open(0).await.unwrap());
    let (mut entries, last) = (Vec::new(), 1_999);
    timeout(LIMIT, slow.fill(&mut entries)).await.unwrap().unwrap();
    assert_eq!(read(&mut quick, last).await.len(), 1_000);
    fixture.stream.purge().sequence(1_900).await.unwrap();
    let end = loop {
        match timeout(LIMIT, slow.fill(&mut entries)).await.expect("an end") {
            Ok(()) => assert!(entries.last().unwrap().sequence < 1_900, "it skipped what was purged"),
            Err(end) => break end,
        }
    };
    assert!(matches!(end, FilteredError::Lost { first: 1_900 }), "{end}");
    let got: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(got, (1..=*got.last().unwrap()).step_by(2).collect::<Vec<_>>());
    fixture.store(2).await;
    assert_eq!(read(&mut quick, 2_001).await, [2_001]);
}

#[tokio::test]
async fn it_does_not_begin_where_the_stream_has_nothing_or_is_another_one() {
    let fixture = Fixture::start().await;
    fixture.store(10).await;
    fixture.stream.purge().sequence(4).await.unwrap();
    for (after, there) in [(2, false), (3, true), (10, true), (11, false)] {
        assert_eq!(fixture.open(after).await.is_ok(), there, "{after}");
    }
    let described = StreamDescription::read(&fixture.link, "EVENTS", Instant::now() + LIMIT).await.unwrap();
    let mut reader = fixture.open(10).await.unwrap();
    jetstream::new(fixture.link.client().clone()).delete_stream("EVENTS").await.unwrap();
    create(&fixture.link).await;
    fixture.store(20).await;
    let mut entries = Vec::new();
    let end = timeout(LIMIT, reader.fill(&mut entries)).await.expect("an end").unwrap_err();
    assert!(matches!(end, FilteredError::Lost { first: 1 }) && entries.is_empty(), "{end}");
    let refused = fixture.open_as(described.identity, 5).await.err().expect("another stream");
    assert!(matches!(refused, FilteredError::Lost { first: 1 }), "{refused}");
}
