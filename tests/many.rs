//! Many replies to one request: how a stream ends, what holds it back, and who is told when nobody reads any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt as _;
use tokio::time::timeout;
use tonic::Code;

use crate::harness::client::{next, settled};
use crate::harness::dynamic::{Dynamic, rest, text};
use crate::harness::proxy::Proxy;
use crate::harness::system::{PATIENCE, reason, until};

/// `{"shelf": "a"}`.
const KEY: &[u8] = b"\x0a\x01a";

fn page(number: usize) -> String {
    format!(r#"{{"text":"p{number}"}}"#)
}

fn header(name: &str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    headers
}

async fn pages(client: &Client, request: &Message, count: usize) {
    for number in 0..count {
        client.publish(request.reply.clone().unwrap(), page(number).into()).await.unwrap();
    }
}

async fn end(client: &Client, request: &Message) {
    client.publish(request.reply.clone().unwrap(), "".into()).await.unwrap();
}

#[tokio::test]
async fn a_stream_ends_at_any_mark_of_its_service() {
    let library = Dynamic::start().await;
    let number = Arc::new(AtomicUsize::new(0));
    library
        .serve("library.read", move |client, request| {
            let number = number.fetch_add(1, Ordering::Relaxed);
            async move {
                pages(&client, &request, 3).await;
                let reply = request.reply.clone().unwrap();
                let marked = header("Nats-Stream-End", "true");
                match number {
                    0 => end(&client, &request).await,
                    1 => client.publish_with_headers(reply, marked, "".into()).await.unwrap(),
                    _ => client.publish_with_headers(reply, marked, page(3).into()).await.unwrap(),
                }
            }
        })
        .await;
    for wanted in [vec!["p0", "p1", "p2"], vec!["p0", "p1", "p2"], vec!["p0", "p1", "p2", "p3"]] {
        let (texts, end) = library.all("Read", KEY).await;
        assert_eq!(texts, wanted);
        end.unwrap();
    }
    library.gateway.drain().await;
}

#[tokio::test]
async fn an_error_of_the_service_ends_the_stream_with_its_status() {
    let library = Dynamic::start().await;
    library
        .serve("library.read", |client, request| async move {
            pages(&client, &request, 2).await;
            let mut headers = header("Nats-Service-Error-Code", "404");
            headers.insert("Nats-Service-Error", "no such page");
            client.publish_with_headers(request.reply.unwrap(), headers, "".into()).await.unwrap();
        })
        .await;
    let (texts, end) = library.all("Read", KEY).await;
    let status = end.unwrap_err();
    assert_eq!((texts.len(), status.code(), status.message()), (2, Code::NotFound, "no such page"));
    library.gateway.drain().await;
}

#[tokio::test]
async fn silence_in_the_middle_is_a_failure_and_nobody_at_all_is_told_as_such() {
    let library = Dynamic::start().await;
    let (_, nobody) = library.all("Read", KEY).await;
    assert_eq!(reason(&nobody.unwrap_err()), "NO_RESPONDERS");
    library.serve("library.read", |client, request| async move { pages(&client, &request, 2).await }).await;
    let (texts, end) = library.all("Read", KEY).await;
    let status = end.unwrap_err();
    assert_eq!(
        (texts.len(), status.code(), reason(&status).as_str()),
        (2, Code::Unavailable, "STREAM_SILENT")
    );
    library.gateway.drain().await;
}

#[tokio::test]
async fn a_stream_ends_by_count_or_when_all_have_answered() {
    let library = Dynamic::start().await;
    library.serve("library.first", |client, request| async move { pages(&client, &request, 5).await }).await;
    let (texts, end) = library.all("First", KEY).await;
    assert_eq!((texts.len(), end.is_ok()), (2, true));
    for _ in 0..3 {
        library
            .serve("library.all", |client, request| async move { pages(&client, &request, 1).await })
            .await;
    }
    let (texts, end) = library.all("All", KEY).await;
    assert_eq!((texts, end.is_ok()), (vec!["p0".to_owned(); 3], true));
    library.gateway.drain().await;
}

#[tokio::test]
async fn an_observable_of_nestjs_is_a_stream() {
    let library = Dynamic::start().await;
    library
        .serve("library.observe", |client, request| async move {
            let asked: serde_json::Value = serde_json::from_slice(&request.payload).unwrap();
            assert_eq!(asked["data"]["shelf"], "a");
            let reply = request.reply.unwrap();
            for number in 0..2 {
                let next = format!(r#"{{"response":{},"id":{}}}"#, page(number), asked["id"]);
                client.publish(reply.clone(), next.into()).await.unwrap();
            }
            let last = format!(r#"{{"isDisposed":true,"id":{}}}"#, asked["id"]);
            client.publish(reply, last.into()).await.unwrap();
        })
        .await;
    let (texts, end) = library.all("Observe", KEY).await;
    assert_eq!((texts, end.is_ok()), (vec!["p0".to_owned(), "p1".to_owned()], true));
    library.gateway.drain().await;
}

#[tokio::test]
async fn a_gap_in_the_numbers_is_data_loss() {
    let library = Dynamic::start().await;
    library
        .serve("library.read", |client, request| async move {
            for number in [1_usize, 2, 4] {
                let headers = header("Nats-Stream-Seq", &number.to_string());
                let reply = request.reply.clone().unwrap();
                client.publish_with_headers(reply, headers, page(number).into()).await.unwrap();
            }
        })
        .await;
    let (texts, end) = library.all("Read", KEY).await;
    let status = end.unwrap_err();
    assert_eq!((texts.len(), status.code(), reason(&status).as_str()), (2, Code::DataLoss, "STREAM_GAP"));
    library.gateway.drain().await;
}

#[tokio::test]
async fn garbage_ends_the_stream_as_a_violation() {
    let library = Dynamic::start().await;
    library
        .serve("library.read", |client, request| async move {
            pages(&client, &request, 1).await;
            client.publish(request.reply.unwrap(), r#"{"text":7}"#.into()).await.unwrap();
        })
        .await;
    let (texts, end) = library.all("Read", KEY).await;
    assert_eq!((texts.len(), reason(&end.unwrap_err()).as_str()), (1, "CONTRACT_VIOLATION"));
    library.gateway.drain().await;
}

#[tokio::test]
async fn the_service_is_told_when_the_caller_leaves_and_not_when_it_has_ended_itself() {
    let library = Dynamic::start().await;
    let cancels = Arc::new(AtomicUsize::new(0));
    let (told, number) = (cancels.clone(), Arc::new(AtomicUsize::new(0)));
    library
        .serve("library.read", move |client, request| {
            let (told, first) = (told.clone(), number.fetch_add(1, Ordering::Relaxed) == 0);
            async move {
                let subject = request.headers.as_ref().unwrap().get("Request-Cancel").unwrap().to_string();
                let mut cancel = client.subscribe(subject).await.unwrap();
                tokio::spawn(
                    async move { cancel.next().await.map(|_| told.fetch_add(1, Ordering::Relaxed)) },
                );
                pages(&client, &request, 1).await;
                if first {
                    end(&client, &request).await;
                }
            }
        })
        .await;
    library.all("Read", KEY).await.1.unwrap();
    let mut stream = library.open("Read", KEY).await.unwrap();
    assert_eq!(text(&stream.message().await.unwrap().unwrap()), "p0");
    assert_eq!(cancels.load(Ordering::Relaxed), 0);
    drop(stream);
    until("the service is told", async || cancels.load(Ordering::Relaxed) == 1).await;
    library.gateway.drain().await;
}

#[tokio::test]
async fn a_service_that_counts_its_messages_keeps_the_pace_of_a_slow_client() {
    let library = Dynamic::start().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    library
        .serve("library.read", move |client, request| {
            let count = count.clone();
            async move {
                let headers = request.headers.as_ref().unwrap();
                let mut window: usize = headers.get("Stream-Window").unwrap().as_str().parse().unwrap();
                let mut credit =
                    client.subscribe(headers.get("Stream-Credit").unwrap().to_string()).await.unwrap();
                // Far more than fits into the buffers between the gateway and its client.
                let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(16 << 10));
                for _ in 0..2_000 {
                    if window == 0 {
                        let more = next(&mut credit).await;
                        window = std::str::from_utf8(&more.payload).unwrap().parse().unwrap();
                    }
                    window -= 1;
                    client.publish(request.reply.clone().unwrap(), text.clone().into()).await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
                end(&client, &request).await;
            }
        })
        .await;
    let mut stream = library.open("Read", KEY).await.unwrap();
    stream.message().await.unwrap();
    // It stops by itself, without having sent all.
    let mut before = 0;
    until("it waits for the client", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        std::mem::replace(&mut before, sent.load(Ordering::Relaxed)) == sent.load(Ordering::Relaxed)
    })
    .await;
    assert!(sent.load(Ordering::Relaxed) < 1_500, "{}", sent.load(Ordering::Relaxed));
    let (texts, end) = rest(stream).await;
    end.unwrap();
    assert_eq!(texts.len() + 1, 2_000);
    library.gateway.drain().await;
}

#[tokio::test]
async fn a_client_that_is_too_slow_ends_its_own_stream_alone() {
    let library = Dynamic::start().await;
    library
        .serve("library.read", |client, request| async move {
            tokio::spawn(async move {
                let slow = request.payload.windows(4).any(|part| part == b"slow");
                let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(16 << 10));
                for _ in 0..if slow { 4_000 } else { 3 } {
                    client.publish(request.reply.clone().unwrap(), text.clone().into()).await.unwrap();
                }
                end(&client, &request).await;
            });
        })
        .await;
    let mut slow = library.open("Read", &b"\x0a\x04slow"[..]).await.unwrap();
    slow.message().await.unwrap();
    for _ in 0..5 {
        let (texts, end) = timeout(PATIENCE, library.all("Read", KEY)).await.unwrap();
        assert_eq!((texts.len(), end.is_ok()), (3, true));
    }
    let (texts, end) = rest(slow).await;
    assert_eq!(reason(&end.unwrap_err()), "SLOW_CLIENT");
    assert!(texts.len() < 3_000, "{}", texts.len());
    library.gateway.drain().await;
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_is_a_failure() {
    let nats = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
    let proxy = Proxy::to(nats.port()).await;
    let library = Dynamic::with(|config, _| config.nats = nats::Options::at(proxy.url())).await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut requests = client.subscribe("library.first").await.unwrap();
    settled(&client).await;
    let (stream, ()) = tokio::join!(library.open("First", KEY), async {
        let request = next(&mut requests).await;
        pages(&client, &request, 1).await;
    });
    let mut stream = stream.unwrap();
    assert_eq!(text(&stream.message().await.unwrap().unwrap()), "p0");
    proxy.cut();
    let (texts, end) = timeout(PATIENCE, rest(stream)).await.unwrap();
    assert_eq!((texts.len(), reason(&end.unwrap_err()).as_str()), (0, "NATS_DISCONNECTED"));
}

#[tokio::test]
async fn a_drain_ends_streams_and_says_so() {
    let library = Dynamic::start().await;
    library
        .serve("library.all", |client, request| async move {
            tokio::spawn(async move {
                for number in 0.. {
                    if client.publish(request.reply.clone().unwrap(), page(number).into()).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        })
        .await;
    let mut stream = library.open("All", KEY).await.unwrap();
    stream.message().await.unwrap();
    let (drained, (_, end)) = tokio::join!(timeout(PATIENCE, library.gateway.drain()), rest(stream));
    drained.unwrap();
    assert_eq!(reason(&end.unwrap_err()), "DRAINING");
}

#[tokio::test]
async fn a_unary_call_that_is_left_is_told_to_its_service_and_an_answered_one_is_not() {
    let library = Dynamic::start().await;
    let cancels = Arc::new(AtomicUsize::new(0));
    let asked = Arc::new(AtomicUsize::new(0));
    let (told, number) = (cancels.clone(), asked.clone());
    library
        .serve("library.wait", move |client, request| {
            let told = told.clone();
            let first = number.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                let subject = request.headers.as_ref().unwrap().get("Request-Cancel").unwrap().to_string();
                let mut cancel = client.subscribe(subject).await.unwrap();
                tokio::spawn(
                    async move { cancel.next().await.map(|_| told.fetch_add(1, Ordering::Relaxed)) },
                );
                if first {
                    client.publish(request.reply.unwrap(), page(0).into()).await.unwrap();
                }
            }
        })
        .await;
    library.ask("Wait", KEY).await.unwrap();
    let left = library.ask("Wait", KEY);
    tokio::select! {
        answer = left => panic!("it is not answered: {answer:?}"),
        () = until("it is asked", async || asked.load(Ordering::Relaxed) == 2) => {}
    }
    until("the service is told", async || cancels.load(Ordering::Relaxed) > 0).await;
    assert_eq!(cancels.load(Ordering::Relaxed), 1);
    library.gateway.drain().await;
}

#[tokio::test]
async fn a_stream_without_a_deadline_lasts_longer_than_its_first_reply_may_take() {
    let library = Dynamic::start().await;
    library
        .serve("library.read", |client, request| async move {
            // The first reply is due in 2 s, and each further one a second after the one before.
            for number in 0..6 {
                client.publish(request.reply.clone().unwrap(), page(number).into()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            end(&client, &request).await;
        })
        .await;
    let (texts, end) = library.all("Read", KEY).await;
    end.unwrap();
    assert_eq!(texts.len(), 6);
    library.gateway.drain().await;
}

#[tokio::test]
async fn a_service_that_waits_for_its_client_has_not_ended() {
    let library = Dynamic::start().await;
    library
        .serve("library.all", |client, request| async move {
            let headers = request.headers.as_ref().unwrap();
            let mut credit =
                client.subscribe(headers.get("Stream-Credit").unwrap().to_string()).await.unwrap();
            let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(64 << 10));
            let mut window: usize = headers.get("Stream-Window").unwrap().as_str().parse().unwrap();
            for _ in 0..500 {
                if window == 0 {
                    let more = next(&mut credit).await;
                    window = std::str::from_utf8(&more.payload).unwrap().parse().unwrap();
                }
                window -= 1;
                client.publish(request.reply.clone().unwrap(), text.clone().into()).await.unwrap();
            }
        })
        .await;
    let mut stream = library.open("All", KEY).await.unwrap();
    stream.message().await.unwrap();
    // Far longer than the idle time that ends a stream of all instances.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (texts, end) = rest(stream).await;
    assert_eq!((texts.len() + 1, end.is_ok()), (500, true));
    library.gateway.drain().await;
}
