//! The client against real sockets: plain servers, servers with TLS, proxies, and servers that answer too much or nothing.

mod proxies;
mod server;
mod tls;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::net::TcpListener;

use self::server::Server;
use crate::{Client, HttpError, HttpErrorKind, Limits, Proxies, Trust};

/// Longer than any exchange takes on a busy machine.
const LIMITS: Limits = Limits { whole: Duration::from_secs(30), body: 1_000 };
/// What a server that hangs is given.
const SHORT: Limits = Limits { whole: Duration::from_secs(1), body: 1_000 };

/// A client for http alone, without proxies.
fn plain(limits: Limits) -> Client {
    Client::new(Trust::plain(), limits).with_proxies(Proxies::of(|_| None))
}

fn get(url: impl AsRef<str>) -> Request<Bytes> {
    Request::get(url.as_ref()).body(Bytes::new()).unwrap()
}

/// Asserts the kind of a failure, and that its text has these words.
fn assert_failed<T: std::fmt::Debug>(result: Result<T, HttpError>, kind: HttpErrorKind, words: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
}

fn ok(length: usize, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes(), body].concat()
}

/// What comes of this answer, and the request.
async fn answered(answer: impl Into<Vec<u8>>) -> (Result<Bytes, HttpError>, String) {
    let mut server = Server::open(answer).await;
    let fetched = plain(LIMITS).fetch(get(server.url("/keys?a=b"))).await;
    (fetched, server.request().await)
}

#[tokio::test]
async fn a_document_comes_whole() {
    let answers = [
        ok(2, b"{}"),
        b"HTTP/1.0 200 OK\r\n\r\n{}".to_vec(),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec(),
    ];
    for answer in answers {
        let (fetched, request) = answered(answer).await;
        assert_eq!(fetched.unwrap(), "{}");
        assert!(request.starts_with("GET /keys?a=b HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("host: 127.0.0.1:") && request.contains("user-agent: "), "{request}");
    }
}

#[tokio::test]
async fn a_document_that_comes_in_part_or_is_none_is_an_error() {
    let bad: [&[u8]; 5] =
        [&ok(3, b"{}"), b"nonsense", b"", b"HTTP/1.1 200 OK\r\n", b"\x15\x03\x01\x00\x02\x02\x16"];
    for bad in bad {
        assert_failed(answered(bad).await.0, HttpErrorKind::Malformed, &["127.0.0.1:", "https://"]);
    }
}

#[tokio::test]
async fn an_answer_with_another_status_than_200_is_no_document() {
    for (line, status, words) in [
        ("302 Found\r\nlocation: http://127.0.0.1/", StatusCode::FOUND, "redirects are not followed"),
        ("404 Not Found", StatusCode::NOT_FOUND, "404 Not Found"),
        ("400 Bad Request", StatusCode::BAD_REQUEST, "https:// if the port uses TLS"),
        ("204 No Content", StatusCode::NO_CONTENT, "204"),
    ] {
        let (fetched, _) = answered(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n")).await;
        assert_failed(fetched, HttpErrorKind::Status(status), &[words]);
    }
}

#[tokio::test]
async fn whoever_wants_any_answer_gets_status_and_body() {
    let mut server = Server::open("HTTP/1.1 503 Later\r\ncontent-length: 4\r\n\r\nbusy").await;
    let request = Request::post(server.url("/v1/traces")).header("x-team", "system").body("spans".into());
    let answer = plain(LIMITS).send(request.unwrap()).await.unwrap();
    assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::SERVICE_UNAVAILABLE, &b"busy"[..]));
    let request = server.request().await;
    assert!(request.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("x-team: system") && request.contains("content-length: 5"), "{request}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_taken() {
    let (most, more) = (vec![b' '; LIMITS.body], vec![b' '; LIMITS.body + 1]);
    assert_eq!(answered(ok(most.len(), &most)).await.0.unwrap().len(), LIMITS.body);
    for large in [ok(more.len(), &more), [b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), more].concat()] {
        assert_failed(answered(large).await.0, HttpErrorKind::TooLarge, &["1000 bytes"]);
    }
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    assert_failed(answered(head).await.0, HttpErrorKind::Malformed, &[]);
}

#[tokio::test]
async fn a_server_that_says_nothing_or_never_comes_to_an_end_is_given_up_in_time() {
    let begun = Instant::now();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    assert_failed(plain(SHORT).fetch(get(&url)).await, HttpErrorKind::Silent, &["within 1s", "127.0.0.1:"]);
    // Each byte comes in time, and the last one never.
    let drips = Server::dripping().await;
    assert_failed(plain(SHORT).fetch(get(drips.url("/"))).await, HttpErrorKind::Silent, &["within 1s"]);
    assert!(begun.elapsed() >= 2 * SHORT.whole);
}

#[tokio::test]
async fn a_port_where_nothing_listens_and_a_name_that_is_none_are_told_apart() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = plain(LIMITS).fetch(get(format!("http://{gone}/"))).await;
    assert_failed(refused, HttpErrorKind::Refused, &["cannot connect", "listens on this port"]);
    // Longer than a label may be, so that no name server is asked.
    let unknown = plain(LIMITS).fetch(get(format!("http://{}.invalid/", "a".repeat(70)))).await;
    assert_failed(unknown, HttpErrorKind::Unresolved, &["cannot be resolved", "correct the name"]);
}

#[tokio::test]
async fn what_is_no_url_of_a_server_is_refused_before_anything_is_connected() {
    for url in ["/keys", "ftp://127.0.0.1/", "127.0.0.1:1"] {
        let failed = plain(LIMITS).fetch(get(url)).await;
        assert_failed(failed, HttpErrorKind::Setting, &["http://HOST"]);
    }
}

#[tokio::test]
async fn a_user_in_a_url_is_neither_sent_nor_shown() {
    let mut server = Server::open(ok(2, b"{}")).await;
    let url = server.url("/").replace("http://", "http://ann:hush@");
    plain(LIMITS).fetch(get(&url)).await.unwrap();
    assert!(!server.request().await.contains("hush"));
    let refused = plain(LIMITS).fetch(get("http://ann:hush@127.0.0.1:1/?token=hush")).await.unwrap_err();
    assert!(!refused.to_string().contains("hush"), "{refused}");
}
