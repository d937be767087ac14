//! Subscriptions to a stream: no gap and no duplicate for a client that resumes with its last token.

use async_nats::jetstream::{self, stream};
use futures_util::future::join_all;
use gateway::Gateway;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{Fixture, Watch};
use crate::harness::system::{assert_refused, reason, until};

impl Fixture {
    /// With the stream.
    async fn storing() -> Fixture {
        let fixture = Fixture::start().await;
        create(&fixture.client).await;
        fixture
    }

    async fn stream(&self) -> stream::Stream {
        jetstream::new(self.client.clone()).get_stream("STORED").await.unwrap()
    }

    /// Stores messages with these numbers for a customer.
    async fn store(&self, customer: &str, numbers: impl IntoIterator<Item = usize>) {
        let context = jetstream::new(self.client.clone());
        let mut unacknowledged = None;
        for number in numbers {
            let payload = serde_json::json!({ "text": number.to_string() }).to_string();
            let ack = context.publish(format!("stored.{customer}"), payload.into()).await.unwrap();
            // Those before it are stored too.
            unacknowledged = Some(ack);
        }
        if let Some(ack) = unacknowledged {
            ack.await.unwrap();
        }
    }

    async fn follow(&self, customer: &str, after: &str) -> Watch {
        Watch::open(&self.channel().await, "Follow", customer, after).await.unwrap()
    }

    /// Starts the gateway anew.
    async fn restart(&mut self) {
        let next = Gateway::start(self.config.clone()).await.unwrap();
        std::mem::replace(&mut self.gateway, next).drain().await;
    }
}

/// Creates the stream, which stores `stored.*`.
pub async fn create(client: &async_nats::Client) {
    let subjects = vec!["stored.*".to_owned()];
    let config = stream::Config { name: "STORED".to_owned(), subjects, ..Default::default() };
    jetstream::new(client.clone()).create_stream(config).await.unwrap();
}

fn numbers(range: std::ops::RangeInclusive<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn a_stream_is_followed_from_now_on_or_behind_a_token() {
    let fixture = Fixture::storing().await;
    fixture.store("ann", [1]).await;
    let mut watch = fixture.follow("ann", "").await;
    assert_eq!(watch.delivery, "at-least-once");
    let begin = watch.token.clone();
    fixture.store("bob", [7]).await;
    fixture.store("ann", [2, 3, 4]).await;
    assert_eq!(watch.texts(1).await, ["2"]);
    let token = watch.token.clone();
    assert_eq!(watch.texts(2).await, ["3", "4"]);
    for (after, wanted) in [(begin, 2..=5), (token, 3..=5)] {
        let mut resumed = fixture.follow("ann", &after).await;
        assert_eq!(resumed.texts(5 - *wanted.start()).await, numbers(*wanted.start()..=4));
    }
    let mut other = fixture.follow("ann", &watch.token).await;
    fixture.store("ann", [5]).await;
    assert_eq!((watch.texts(1).await, other.texts(1).await), (numbers(5..=5), numbers(5..=5)));
    assert_eq!(fixture.stream().await.get_info().await.unwrap().state.consumer_count, 1);
    drop((watch, other));
    let consumers = async || fixture.stream().await.get_info().await.unwrap().state.consumer_count;
    until("nobody reads", async || consumers().await == 0).await;
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn a_watcher_that_is_far_behind_reads_alone_until_it_has_caught_up() {
    let fixture = Fixture::storing().await;
    let begin = fixture.follow("ann", "").await.token;
    fixture.store("ann", 1..=3_000).await;
    fixture.store("bob", 1..=6_000).await;
    let mut watch = fixture.follow("ann", &begin).await;
    assert_eq!(watch.texts(3_000).await, numbers(1..=3_000));
    // What it reads alone has ended, though nothing comes for its subject any more.
    let consumers = async || fixture.stream().await.get_info().await.unwrap().state.consumer_count;
    until("it has caught up", async || consumers().await == 1).await;
    fixture.store("ann", 3_001..=3_100).await;
    assert_eq!(watch.texts(100).await, numbers(3_001..=3_100));
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn those_who_catch_up_are_few_and_others_are_told_to_come_back() {
    let fixture = Fixture::storing().await;
    let begin = fixture.follow("ann", "").await.token;
    fixture.store("ann", 1..=6_000).await;
    let mut held = Vec::new();
    let refused = loop {
        let narrow = fixture.endpoint().initial_stream_window_size(1 << 10).connect().await.unwrap();
        match Watch::open(&narrow, "Follow", "ann", &begin).await {
            Ok(watch) => held.push((watch, narrow)),
            Err(status) => break status,
        }
        assert!(held.len() <= 16, "there is no limit");
    };
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    // Who needs no reader of its own is served.
    let mut watch = fixture.follow("ann", "").await;
    fixture.store("ann", [6_001]).await;
    assert_eq!(watch.texts(1).await, ["6001"]);
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn a_token_of_what_was_purged_or_of_another_stream_is_out_of_range() {
    let fixture = Fixture::storing().await;
    let mut watch = fixture.follow("ann", "").await;
    fixture.store("ann", 1..=5).await;
    watch.texts(1).await;
    let (old, channel) = (watch.token.clone(), fixture.channel().await);
    watch.texts(4).await;
    fixture.stream().await.purge().sequence(4).await.unwrap();
    let next = Gateway::start(fixture.config.clone()).await.unwrap();
    let fresh = super::endpoint(&next).connect().await.unwrap();
    let refused = Watch::open(&fresh, "Follow", "ann", &old).await.map(|_| ()).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::OutOfRange, "POSITION_LOST"));
    assert_eq!(refused.get_details_error_info().unwrap().metadata["first_sequence"], "4");
    jetstream::new(fixture.client.clone()).delete_stream("STORED").await.unwrap();
    create(&fixture.client).await;
    fixture.store("ann", 1..=9).await;
    let end = watch.end().await;
    assert_eq!((end.code(), reason(&end).as_str()), (Code::OutOfRange, "POSITION_LOST"));
    for channel in [&channel, &fresh] {
        let refused = Watch::open(channel, "Follow", "ann", &watch.token).await.map(|_| ());
        assert_refused(refused, "POSITION_LOST");
    }
    next.drain().await;
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn a_token_that_was_altered_or_is_of_another_subject_is_invalid() {
    let fixture = Fixture::storing().await;
    let channel = fixture.channel().await;
    let token = fixture.follow("ann", "").await.token;
    let foreign = fixture.follow("bob", "").await.token;
    let mut altered = token.clone().into_bytes();
    altered[20] = if altered[20] == b'x' { b'y' } else { b'x' };
    for after in ["1", "*", &foreign, &format!("{token}A"), &String::from_utf8(altered).unwrap()] {
        let refused = Watch::open(&channel, "Follow", "ann", after).await.map(|_| ()).unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    }
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn what_was_removed_from_the_middle_or_claims_a_token_of_its_own_ends_nothing() {
    let fixture = Fixture::storing().await;
    let mut watch = fixture.follow("ann", "").await;
    let begin = watch.token.clone();
    fixture.store("ann", 1..=5).await;
    watch.texts(2).await;
    let second = watch.token.clone();
    for sequence in [2, 4] {
        fixture.stream().await.delete_message(sequence).await.unwrap();
    }
    let mut resumed = fixture.follow("ann", &begin).await;
    assert_eq!(resumed.next().await.unwrap(), "1");
    fixture.client.publish("stored.ann", r#"{"text": "6", "token": "mine"}"#.into()).await.unwrap();
    let mut resumed = fixture.follow("ann", &second).await;
    let last = async |watch: &mut Watch| while watch.next().await.unwrap() != "6" {};
    last(&mut resumed).await;
    assert_ne!(resumed.token, "mine");
    let mut resumed = fixture.follow("ann", &resumed.token).await;
    fixture.store("ann", [7]).await;
    assert_eq!(resumed.next().await.unwrap(), "7");
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn a_drain_ends_watchers_and_the_last_token_continues_elsewhere() {
    let mut fixture = Fixture::storing().await;
    let (mut busy, mut quiet) = (fixture.follow("ann", "").await, fixture.follow("bob", "").await);
    fixture.store("ann", [1]).await;
    busy.texts(1).await;
    fixture.restart().await;
    for watch in [&mut busy, &mut quiet] {
        let token = watch.token.clone();
        assert_eq!(reason(&watch.end().await), "DRAINING");
        watch.token = token;
    }
    fixture.store("ann", [2]).await;
    fixture.store("bob", [9]).await;
    let mut busy = fixture.follow("ann", &busy.token).await;
    let mut quiet = fixture.follow("bob", &quiet.token).await;
    assert_eq!((busy.texts(1).await, quiet.texts(1).await), (numbers(2..=2), numbers(9..=9)));
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn a_watcher_that_comes_and_goes_while_messages_are_stored_gets_each_once() {
    let fixture = Fixture::storing().await;
    let channel = fixture.channel().await;
    // With and without another one, whose reader goes on meanwhile.
    for customer in ["ann", "bob"] {
        let mut stays = fixture.follow("ann", "").await;
        let mut token = fixture.follow(customer, "").await.token;
        let comes_and_goes = async {
            let mut got = Vec::new();
            while got.len() < 3_000 {
                let mut watch = Watch::open(&channel, "Follow", customer, &token).await.unwrap();
                let count = (got.len() * 7 % 60 + 1).min(3_000 - got.len());
                got.extend(watch.texts(count).await);
                token = watch.token;
            }
            got
        };
        let (got, ()) = tokio::join!(comes_and_goes, async {
            for first in (1..=3_000).step_by(20) {
                fixture.store(customer, first..first + 20).await;
                fixture.store("other", 1..=3).await;
            }
        });
        assert_eq!(got, numbers(1..=3_000));
        if customer == "ann" {
            assert_eq!(stays.texts(3_000).await, got);
        }
    }
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn a_watcher_goes_on_when_the_nats_server_was_away() {
    let mut fixture = Fixture::storing().await;
    let mut watch = fixture.follow("ann", "").await;
    fixture.store("ann", 1..=3).await;
    assert_eq!(watch.texts(3).await, numbers(1..=3));
    fixture.nats.kill();
    fixture.nats.restart().unwrap();
    let stored = async || {
        let ack = jetstream::new(fixture.client.clone()).publish("stored.bob", "{}".into()).await;
        ack.unwrap().await.is_ok()
    };
    until("the server stores again", stored).await;
    fixture.store("ann", 4..=6).await;
    assert_eq!(watch.texts(3).await, numbers(4..=6));
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn two_thousand_watchers_resume_over_a_restart_without_gap_or_duplicate() {
    let mut fixture = Fixture::storing().await;
    let mut watches = many(&fixture, &vec![String::new(); 2_000]).await;
    fixture.store("ann", 1..=4).await;
    // Each has read as far as the others, or less.
    let mut read = Vec::new();
    for (place, watch) in watches.iter_mut().enumerate() {
        read.push(1 + place % 4);
        assert_eq!(watch.texts(1 + place % 4).await, numbers(1..=1 + place % 4));
    }
    let tokens: Vec<String> = watches.iter().map(|watch| watch.token.clone()).collect();
    drop(watches);
    fixture.store("ann", 5..=6).await;
    fixture.restart().await;
    let mut watches = many(&fixture, &tokens).await;
    fixture.store("ann", 7..=8).await;
    for (watch, read) in watches.iter_mut().zip(read) {
        assert_eq!(watch.texts(8 - read).await, numbers(read + 1..=8));
    }
    assert_eq!(fixture.stream().await.get_info().await.unwrap().state.consumer_count, 1);
    drop(watches);
    fixture.gateway.drain().await;
}

/// A watcher behind each of these tokens, over few connections.
async fn many(fixture: &Fixture, tokens: &[String]) -> Vec<Watch> {
    let mut watches = Vec::new();
    for tokens in tokens.chunks(500) {
        let channel = fixture.channel().await;
        let opened = tokens.iter().map(|token| Watch::open(&channel, "Follow", "ann", token));
        watches.extend(join_all(opened).await.into_iter().map(Result::unwrap));
    }
    watches
}
