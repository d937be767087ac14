//! The receiver of a restore's chunks may appear with a delay.

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
