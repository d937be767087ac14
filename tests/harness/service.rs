//! A scripted NATS service in place of the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;

use crate::harness::client::settled;
use crate::harness::system::System;

/// A scripted service on `check_inventory` that counts its requests.
pub async fn serve(
    system: &System,
    answer: impl Fn(usize) -> Option<(HeaderMap, Bytes)> + Send + 'static,
) -> Arc<AtomicUsize> {
    let client = system.nats().await;
    let mut requests = client.queue_subscribe("check_inventory", "inventory-check".to_owned()).await.unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    // A round trip, after which the server knows the subscription.
    settled(&client).await;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let number = counter.fetch_add(1, Ordering::SeqCst);
            if let (Some((headers, body)), Some(reply)) = (answer(number), request.reply) {
                // An error means that the test is over.
                let _ = client.publish_with_headers(reply, headers, body).await;
            }
        }
    });
    count
}
