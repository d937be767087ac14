//! Parts of a transfer: chunks that are sent before their receiver is there, and how the server ends one.

use futures_util::StreamExt as _;

use super::*;
use crate::options::Options;

#[tokio::test]
async fn a_chunk_is_sent_again_until_somebody_is_there_to_take_it() {
    let server = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
    let link = Connection::connect(&Options::at(server.url()), "test").await.unwrap();
    let limit = Instant::now() + ATTEMPT;
    let send = hand_over(&link, "restore", Bytes::from_static(b"chunk"), limit, limit);
    let take = async {
        tokio::time::sleep(4 * PAUSE).await;
        let mut chunks = link.client().subscribe("restore").await.unwrap();
        let chunk = chunks.next().await.unwrap();
        link.client().publish(chunk.reply.unwrap(), chunk.payload).await.unwrap();
    };
    assert_eq!(tokio::join!(send, take).0.unwrap().payload, "chunk");
    let late = hand_over(&link, "nowhere", Bytes::new(), limit, Instant::now()).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
}

#[test]
fn a_consumer_on_a_node_that_is_down_is_told_from_other_ends_of_a_transfer() {
    let down = BackupError::aborted("failed to get consumer state for 'ONE > 4651b29e'".to_owned());
    assert!(matches!(&down, BackupError::ConsumerDown(name) if name == "4651b29e"), "{down:?}");
    for text in ["failed to get consumer state for 'ONE", "stream is damaged"] {
        let other = BackupError::aborted(text.to_owned());
        assert!(other.to_string() == format!("the server aborted the transfer: {text}"), "{other}");
    }
}

#[test]
fn a_restore_without_a_leader_is_told_as_that_and_every_other_refusal_in_the_servers_words() {
    let refusal = |err_code| {
        refused(ApiError { code: 503, err_code, description: "temporarily unavailable".to_owned() })
    };
    assert!(matches!(refusal(NOT_AVAILABLE), BackupError::Store(store) if store.may_lack_leader()));
    assert!(matches!(refusal(10058), BackupError::BrokenOff(text) if text == "temporarily unavailable"));
}

#[tokio::test]
async fn of_a_stream_that_does_not_exist_no_copy_is_requested() {
    let server = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
    let link = Connection::connect(&Options::at(server.url()), "test").await.unwrap();
    let missing = led(&link, "NOWHERE").await;
    assert!(matches!(missing, Err(BackupError::Store(StoreError::Unusable(_)))), "{missing:?}");
}
