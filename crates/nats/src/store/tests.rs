//! The meaning of JetStream's answers, code by code.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use local_nats::Server;

use super::*;
use crate::Options;

const GONE: &str = r#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
const INFO: &str = r#"{"state":{"first_seq":1,"last_seq":7},"config":{}}"#;

/// A store whose JetStream gives these answers in turn, then the last one forever, and counts them.
async fn store(answers: &'static [&'static str]) -> (Server, Store, Arc<AtomicUsize>) {
    // JetStream API requests go to the test.
    let config = "accounts { JS { jetstream: enabled, users: [{ user: j, password: j }] }\n\
                  NONE { mappings: { \"$JS.API.>\": \"js.>\" }, users: [{ user: n, password: n }] } }\nno_auth_user: n";
    let options = local_nats::Options { config: Some(config.to_owned()), ..Default::default() };
    let server = tokio::task::spawn_blocking(|| Server::with(options)).await.unwrap().unwrap();
    let url = server.url();
    let nats = async_nats::connect(&url).await.unwrap();
    let mut asked = nats.subscribe(">").await.unwrap();
    nats.flush().await.unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let Some(reply) = message.reply else { continue };
            let number = counted.fetch_add(1, Ordering::SeqCst);
            let answer = answers[number.min(answers.len() - 1)];
            nats.publish(reply, answer.into()).await.unwrap();
        }
    });
    let link = Connection::connect(&Options::at(url), "test").await.unwrap();
    (server, Store::new(link, "ONE"), count)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[tokio::test]
async fn a_stream_that_was_not_found_once_is_asked_for_again() {
    let (_server, store, asked) = store(&[GONE, INFO]).await;
    assert_eq!(store.range(soon()).await.unwrap(), Range { first: 1, last: 7 });
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_stream_that_was_not_found_twice_is_gone_for_reads_and_appends() {
    let (_server, store, asked) = store(&[GONE]).await;
    assert!(matches!(store.last("x", soon()).await, Err(StoreError::Unusable(_))));
    assert_eq!(asked.load(Ordering::SeqCst), 2, "it is asked no more often than needed");
    let appended = store.append("x", HeaderMap::new(), "x".into(), Expect::Last(7), soon()).await;
    assert!(matches!(appended, Err(StoreError::Unusable(_))), "{appended:?}");
}

#[tokio::test]
async fn an_append_that_found_no_stream_where_there_is_one_may_be_repeated() {
    let (_server, store, _) = store(&[GONE, GONE, INFO]).await;
    let appended = store.append("x", HeaderMap::new(), "x".into(), Expect::Last(7), soon()).await;
    assert!(matches!(appended, Err(StoreError::Unavailable(_))), "{appended:?}");
}

#[tokio::test]
async fn without_time_to_ask_again_one_answer_is_not_believed() {
    let (_server, store, _) = store(&[GONE]).await;
    // An answer may take longer than this, which proves nothing either.
    let read = store.range(Instant::now() + RETRY_PAUSE).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
}

fn of_append(code: u64, err_code: u64, description: &str) -> StoreError {
    let text =
        format!(r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"{description}"}}}}"#);
    let reply = answer::<PubAck>(text.as_bytes()).unwrap();
    reply.map_err(StoreError::from).unwrap_err()
}

#[test]
fn an_answer_means_what_its_code_says() {
    assert!(matches!(
        of_append(400, 10071, "wrong last sequence: 7"),
        StoreError::Conflict { last: Some(7) }
    ));
    assert!(matches!(of_append(400, 10071, "wrong last sequence"), StoreError::Conflict { last: None }));
    assert!(matches!(of_append(400, 10164, "wrong last sequence"), StoreError::Undetermined(_)));
    assert!(matches!(
        of_append(409, 10158, "duplicate message id is in process"),
        StoreError::Undetermined(_)
    ));
    assert!(matches!(of_append(400, 10060, "expected stream does not match"), StoreError::Unusable(_)));
    assert!(matches!(of_append(503, 10008, "temporarily unavailable"), StoreError::Unavailable(_)));
    assert!(matches!(of_append(503, 10077, "maximum bytes exceeded"), StoreError::Full(_)));
    assert!(matches!(of_append(503, 10077, "raft: failed"), StoreError::Undetermined(_)));
    assert!(matches!(of_append(500, 10047, "insufficient storage"), StoreError::Full(_)));
    assert!(matches!(of_append(400, 10054, "message size exceeds maximum"), StoreError::TooLarge { .. }));
    assert!(matches!(of_append(400, 10999, "something new"), StoreError::Unexpected(_)));
}

#[test]
fn a_leader_that_changes_has_stored_nothing_or_nobody_knows() {
    // A proposal that Raft refused has no JetStream error code.
    assert!(matches!(of_append(503, 0, "raft: not leader"), StoreError::Unavailable(_)));
    assert!(matches!(of_append(503, 10039, "not enabled for account"), StoreError::Unavailable(_)));
    assert!(matches!(of_append(404, 10059, "stream not found"), StoreError::Unusable(_)));
    assert!(matches!(of_append(503, 10023, "insufficient resources"), StoreError::Full(_)));
    for code in [10009, 10041, 10118] {
        assert!(matches!(of_append(500, code, "raft"), StoreError::Undetermined(_)), "{code}");
    }
}

#[test]
fn a_read_is_never_open_and_never_full() {
    let read =
        |code: u64, err_code: u64| of_read(ApiError { code, err_code, description: "raft".to_owned() });
    for (code, err_code) in [(500, 10009), (503, 10023), (503, 10008), (503, 10077)] {
        assert!(matches!(read(code, err_code), StoreError::Unavailable(_)), "{err_code}");
    }
}

#[test]
fn an_acknowledgement_has_a_sequence() {
    assert_eq!(answer::<PubAck>(br#"{"stream":"ONE","seq":7}"#).unwrap().unwrap().sequence, 7);
    assert!(answer::<PubAck>(b"{}").is_err() && answer::<PubAck>(b"nonsense").is_err());
}
