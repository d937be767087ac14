//! Metadata that routes list: what of a call reaches its service, and what of a reply reaches the caller.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, jetstream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderName, HeaderValue};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::harness::client::next;
use crate::harness::codec::BytesCodec;
use crate::harness::dynamic::{Dynamic, serving, text};
use crate::harness::http::answer;
use crate::harness::system::reason;

/// `{"text": "a"}`.
const TEXT: &[u8] = b"\x0a\x01a";

/// Names and values, as they are on the wire.
type Pairs<'a> = &'a [(&'a str, &'a [u8])];

/// A gateway for the routes of `fixtures/metadata.proto`.
struct Echo {
    library: Dynamic,
    _folder: TempDir,
}

/// What a call of [`Echo`] has come to.
struct Ended {
    initial: MetadataMap,
    texts: Vec<String>,
    trailers: MetadataMap,
}

impl Echo {
    async fn start() -> Echo {
        let folder = tempfile::tempdir().unwrap();
        let change = |config: &mut gateway::config::Serve, _| {
            config.sources = serving(&folder, include_str!("fixtures/metadata.proto"), "").sources;
        };
        let library = Dynamic::with(change).await;
        Echo { library, _folder: folder }
    }

    /// Answers each message on a subject with these replies.
    async fn replies(&self, subject: &str, replies: &[(Pairs<'_>, &str)]) {
        let replies: Vec<_> =
            replies.iter().map(|(pairs, body)| (headers(pairs), Bytes::from((*body).to_owned()))).collect();
        let answer = move |client: Client, request: Message| {
            let (replies, to) = (replies.clone(), request.reply.unwrap());
            async move {
                for (headers, body) in replies {
                    match headers.is_empty() {
                        true => client.publish(to.clone(), body).await.unwrap(),
                        false => client.publish_with_headers(to.clone(), headers, body).await.unwrap(),
                    }
                }
            }
        };
        self.library.serve(subject, answer).await;
    }

    async fn open(&self, rpc: &str, pairs: Pairs<'_>) -> Result<Response<Streaming<Bytes>>, Status> {
        let mut request = Request::new(Bytes::from_static(TEXT));
        for (name, value) in pairs {
            let value = HeaderValue::from_bytes(value).unwrap();
            request.metadata_mut().as_mut().append(HeaderName::try_from(*name).unwrap(), value);
        }
        let mut grpc = Grpc::new(self.library.channel.clone());
        grpc.ready().await.unwrap();
        grpc.server_streaming(request, format!("/echo.v1.Echo/{rpc}").parse().unwrap(), BytesCodec).await
    }

    /// Calls an rpc, unary or streaming, and reads it to its end.
    async fn call(&self, rpc: &str, pairs: Pairs<'_>) -> Result<Ended, Status> {
        let (initial, mut stream, _) = self.open(rpc, pairs).await?.into_parts();
        let mut texts = Vec::new();
        while let Some(message) = stream.message().await? {
            texts.push(text(&message));
        }
        Ok(Ended { initial, texts, trailers: stream.trailers().await?.unwrap_or_default() })
    }

    /// Calls an rpc, and returns the request that its service got.
    async fn heard(&self, rpc: &str, subject: &'static str, pairs: Pairs<'_>) -> HeaderMap {
        let mut heard = self.library.client.subscribe(subject).await.unwrap();
        self.library.settled().await;
        let _ended = self.call(rpc, pairs).await;
        next(&mut heard).await.headers.unwrap()
    }
}

fn headers(pairs: Pairs<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, std::str::from_utf8(value).unwrap());
    }
    headers
}

/// The values of a key on the wire, in their order.
fn all(metadata: &MetadataMap, key: &str) -> Vec<String> {
    let values = metadata.as_ref().get_all(key).iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn sent(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).map(ToString::to_string).collect()
}

#[tokio::test]
async fn what_a_route_lists_reaches_its_service_and_nothing_else() {
    let echo = Echo::start().await;
    echo.replies("echo.ask", &[(&[], r#"{"text":"b"}"#)]).await;
    let pairs: Pairs<'_> = &[
        ("x-tag", b"one, two"),
        ("x-raw-bin", b"AAEC,/w=="),
        ("x-tag", b" three "),
        ("x-raw-bin", b"+/8"),
        ("x-other", b"no"),
        ("principal", b"eve"),
    ];
    let heard = echo.heard("Ask", "echo.ask", pairs).await;
    assert_eq!(sent(&heard, "X-Tag"), ["one, two", "three"], "as the route spells it");
    assert_eq!(sent(&heard, "x-raw-bin"), ["AAEC", "/w==", "+/8"]);
    let mut names: Vec<&str> = heard.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    assert_eq!(names, ["Content-Type", "Request-Deadline", "Request-Timeout", "X-Tag", "x-raw-bin"]);
    let heard = echo.heard("Ask", "echo.ask", &[]).await;
    assert_eq!(heard.len(), 3, "{heard:?}");
    echo.library.gateway.drain().await;
}

#[tokio::test]
async fn a_value_that_no_header_can_have_is_refused_with_its_name_and_nothing_is_sent() {
    let echo = Echo::start().await;
    let mut requests = echo.library.client.subscribe("echo.>").await.unwrap();
    echo.library.settled().await;
    let cases: [(&str, &str, &[u8]); 5] = [
        ("Ask", "x-tag", b"a\tb"),
        ("Ask", "x-tag", b"\xff"),
        ("Ask", "x-tag", "Zoë".as_bytes()),
        ("Ask", "x-raw-bin", b"not base64"),
        ("Many", "x-tag", b"\xff"),
    ];
    for (rpc, name, value) in cases {
        let refused = echo.call(rpc, &[("x-tag", b"fine"), (name, value)]).await.err().unwrap();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
        assert!(refused.message().contains(name), "{refused}");
    }
    assert!(timeout(Duration::from_millis(300), requests.next()).await.is_err());
    echo.library.gateway.drain().await;
}

#[tokio::test]
async fn headers_of_a_reply_become_metadata_and_trailers_if_they_are_listed() {
    let echo = Echo::start().await;
    let reply: Pairs<'_> = &[
        ("X-TAG", b"one"),
        ("X-TAG", b"two"),
        ("Trailer-X-Tag", b"three"),
        ("trailer-x-raw-bin", b"AAEC"),
        ("X-Other", b"no"),
        ("Trailer-X-Other", b"no"),
    ];
    echo.replies("echo.ask", &[(reply, r#"{"text":"b"}"#)]).await;
    let ended = echo.call("Ask", &[]).await.unwrap();
    assert_eq!(
        (all(&ended.initial, "x-tag"), ended.texts),
        (vec!["one".into(), "two".into()], vec!["b".into()])
    );
    assert_eq!(all(&ended.trailers, "x-tag"), ["three"]);
    assert_eq!(ended.trailers.get_bin("x-raw-bin").unwrap().to_bytes().unwrap(), &b"\0\x01\x02"[..]);
    assert!(ended.initial.get_bin("x-raw-bin").is_none());
    for metadata in [&ended.initial, &ended.trailers] {
        assert!(
            ["x-other", "trailer-x-other", "trailer-x-tag"].iter().all(|name| !metadata.contains_key(*name))
        );
    }
    echo.library.gateway.drain().await;
}

#[tokio::test]
async fn a_route_without_lists_passes_nothing_on() {
    let echo = Echo::start().await;
    let reply: Pairs<'_> = &[("X-Tag", b"one"), ("Trailer-X-Tag", b"two")];
    echo.replies("echo.closed", &[(reply, r#"{"text":"b"}"#)]).await;
    let ended = echo.call("Closed", &[("x-tag", b"one")]).await.unwrap();
    assert!(!ended.initial.contains_key("x-tag") && !ended.trailers.contains_key("x-tag"));
    let heard = echo.heard("Closed", "echo.closed", &[("x-tag", b"one")]).await;
    assert_eq!(heard.len(), 3, "{heard:?}");
    echo.library.gateway.drain().await;
}

#[tokio::test]
async fn values_that_no_caller_can_get_are_left_out_and_counted_and_the_reply_counts() {
    let echo = Echo::start().await;
    let long = vec![b'x'; 3_000];
    let reply: Pairs<'_> = &[
        ("X-Tag", "Zoë".as_bytes()),
        ("X-Tag", &long),
        ("X-Tag", &long),
        ("X-Tag", b"last"),
        ("X-Raw-Bin", b"no base64"),
        ("Trailer-X-Tag", &long),
    ];
    echo.replies("echo.ask", &[(reply, r#"{"text":"b"}"#)]).await;
    let ended = echo.call("Ask", &[]).await.unwrap();
    let lengths: Vec<usize> = all(&ended.initial, "x-tag").iter().map(String::len).collect();
    assert_eq!((lengths, all(&ended.trailers, "x-tag")[0].len()), (vec![3_000, 4], 3_000));
    assert_eq!(ended.texts, ["b"]);
    let metrics = answer(echo.library.gateway.http_addr(), "/metrics").await;
    assert!(metrics.contains("gateway_route_metadata_left_out_total{route=\"echo.ask\"} 3"), "{metrics}");
    echo.library.gateway.drain().await;
}

#[tokio::test]
async fn errors_of_the_service_have_the_trailers_of_its_reply() {
    let echo = Echo::start().await;
    let refusal: Pairs<'_> = &[
        ("Nats-Service-Error-Code", b"404"),
        ("Nats-Service-Error", b"no such text"),
        ("Trailer-X-Tag", b"t"),
        ("Trailer-X-Raw-Bin", b"AAEC"),
        ("Trailer-X-Other", b"no"),
    ];
    echo.replies("echo.ask", &[(refusal, "")]).await;
    echo.replies("echo.many", &[(&[], r#"{"text":"b"}"#), (refusal, "")]).await;
    for rpc in ["Ask", "Many"] {
        let status = echo.call(rpc, &[]).await.err().unwrap();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "no such text"), "{rpc}");
        assert_eq!(all(status.metadata(), "x-tag"), ["t"], "{rpc}");
        assert_eq!(status.metadata().get_bin("x-raw-bin").unwrap().to_bytes().unwrap(), &b"\0\x01\x02"[..]);
        assert!(!status.metadata().contains_key("x-other"));
    }
    echo.library.gateway.drain().await;
}

#[tokio::test]
async fn a_stream_begins_with_the_metadata_of_its_first_reply_and_ends_with_the_trailers_of_its_last() {
    let echo = Echo::start().await;
    let first: Pairs<'_> = &[("X-Tag", b"first"), ("Trailer-X-Tag", b"no")];
    let last: Pairs<'_> = &[("X-Tag", b"no"), ("Trailer-X-Tag", b"last"), ("Nats-Stream-End", b"true")];
    let body = r#"{"text":"b"}"#;
    echo.replies("echo.many", &[(first, body), (&[("X-Tag", b"no")], body), (last, "")]).await;
    echo.replies("echo.two", &[(first, body), (&last[..2], body)]).await;
    for rpc in ["Many", "Two"] {
        let ended = echo.call(rpc, &[]).await.unwrap();
        assert_eq!(all(&ended.initial, "x-tag"), ["first"], "{rpc}");
        assert_eq!((ended.texts.len(), all(&ended.trailers, "x-tag")), (2, vec!["last".to_owned()]), "{rpc}");
    }
    let heard = echo.heard("Many", "echo.many", &[("x-tag", b"one")]).await;
    assert_eq!(sent(&heard, "X-Tag"), ["one"]);
    echo.library.gateway.drain().await;
}

#[tokio::test]
async fn events_and_stored_messages_have_the_metadata_of_their_call() {
    let echo = Echo::start().await;
    let heard = echo.heard("Tell", "echo.told", &[("x-tag", b"one"), ("x-tag", b"two")]).await;
    assert_eq!(sent(&heard, "X-Tag"), ["one", "two"]);
    let jetstream = jetstream::new(echo.library.client.clone());
    let (name, subjects) = ("KEPT".to_owned(), vec!["echo.kept".to_owned()]);
    let stream = jetstream::stream::Config { name, subjects, ..Default::default() };
    let stream = jetstream.create_stream(stream).await.unwrap();
    for (sequence, rpc) in [(1, "Keep"), (2, "KeepAll")] {
        echo.call(rpc, &[("x-tag", b"one"), ("x-other", b"no")]).await.unwrap();
        let stored = stream.get_raw_message(sequence).await.unwrap();
        assert_eq!(sent(&stored.headers, "X-Tag"), ["one"], "{rpc}");
        assert!(stored.headers.get("x-other").is_none());
    }
    echo.library.gateway.drain().await;
}

#[tokio::test]
async fn metadata_counts_against_the_size_that_the_server_takes() {
    let options = local_nats::Options { config: Some("max_payload: 4096".to_owned()), ..Default::default() };
    let nats = tokio::task::spawn_blocking(|| local_nats::Server::with(options)).await.unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let change = |config: &mut gateway::config::Serve, _| {
        *config = serving(&folder, include_str!("fixtures/metadata.proto"), &nats.url());
    };
    let echo = Echo { library: Dynamic::with(change).await, _folder: tempfile::tempdir().unwrap() };
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut requests = client.subscribe("echo.>").await.unwrap();
    crate::harness::client::settled(&client).await;
    let refused = echo.call("Ask", &[("x-tag", &[b'x'; 4_096])]).await.err().unwrap();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "PAYLOAD_TOO_LARGE"));
    assert!(refused.message().contains("4096"), "{refused}");
    assert!(timeout(Duration::from_millis(300), requests.next()).await.is_err());
    echo.library.gateway.drain().await;
}

#[test]
fn no_header_of_the_gateways_own_can_be_listed() {
    let sources =
        [include_str!("../crates/wire/src/header.rs"), include_str!("../crates/server/src/headers.rs")];
    let names = sources.iter().flat_map(|source| source.split('"').skip(1).step_by(2));
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for name in names {
        let lists = format!("metadata: {{request: [{name:?}, \"x-raw-bin\"]");
        let proto = include_str!("fixtures/metadata.proto");
        let proto = proto.replace("metadata: {request: [\"X-Tag\", \"x-raw-bin\"]", &lists);
        let refused = serving(&folder, &proto, "").sources.read().unwrap_err().to_string();
        assert!(refused.contains(&format!("{name:?} never passes")), "{refused}");
        count += 1;
    }
    assert!(count > 15, "{count} names");
}
