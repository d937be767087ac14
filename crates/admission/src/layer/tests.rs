//! Calls to a service that reads them and never answers, under a test clock.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::atomic::Ordering;
use std::task::Context;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, advance};
use tonic_types::StatusExt as _;
use wire::header::REQUEST_ID;

use super::*;
use crate::budget::{ConnectionMetrics, MemoryBudget, Size};
use crate::unfinished::{self, IDLE, TOTAL};

const CREATE: &str = "/orders.v1.OrderService/CreateOrder";
const SIZE: Size = Size {
    all: 1 << 20,
    request: 100_000,
    answers: 4_000,
    answer: 1_000,
    streams: [8, 2],
    connection_streams: [4, 2],
};

/// Reads requests to their end, and answers only broken ones.
#[derive(Clone)]
struct Reader;

impl<B> Service<Request<B>> for Reader
where
    B: http_body::Body<Data = Bytes, Error: Send> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        async move {
            let answers = request.headers().contains_key(REQUEST_ID);
            match request.into_body().collect().await {
                Ok(_) if answers => Ok(http::Response::new(Body::empty())),
                Ok(_) => pending().await,
                Err(_) => Ok(Status::unknown("the reader's own words").into_http()),
            }
        }
        .boxed()
    }
}

/// A body of parts: data, an error, or a pause. It ends after the last, or as if it had been reset.
struct Parts {
    parts: VecDeque<Part>,
    reset: bool,
    wait: Option<Pin<Box<tokio::time::Sleep>>>,
}

enum Part {
    Data(Vec<u8>),
    Error,
    Pause(u64),
}

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(wait) = &mut self.wait {
            std::task::ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        match self.parts.pop_front() {
            None => Poll::Ready(None),
            Some(Part::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data.into())))),
            Some(Part::Error) => Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
            Some(Part::Pause(seconds)) => {
                self.wait = Some(Box::pin(tokio::time::sleep(Duration::from_secs(seconds))));
                self.poll_frame(context)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty() && !self.reset
    }
}

fn parts(parts: impl IntoIterator<Item = Part>) -> Parts {
    Parts { parts: parts.into_iter().collect(), reset: false, wait: None }
}

fn message(claims: u32, sent: usize) -> Part {
    Part::Data([&[0][..], &claims.to_be_bytes(), &vec![7; sent]].concat())
}

fn post(path: &str) -> http::request::Builder {
    Request::post(path).header("content-type", "application/grpc")
}

fn admission(connection: Arc<ConnectionBudget>) -> Admitting<Reader> {
    Admission::new(4_096, [(CREATE.to_owned(), 50_000)], CancellationToken::new()).before(Reader, connection)
}

async fn told(request: Request<Parts>) -> (Code, String, String) {
    let budget = MemoryBudget::new(SIZE);
    let status = answer(&budget, request).await;
    let mut page = telemetry::Exposition::default();
    telemetry::Source::collect(&budget, &mut page);
    assert_eq!(page.number("gateway_request_bytes", &[]), 0.0, "all is given back");
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    (status.code(), reason, status.message().to_owned())
}

async fn answer(budget: &MemoryBudget, request: Request<Parts>) -> Status {
    let response = admission(budget.connection()).call(request).await.unwrap();
    Status::from_header_map(response.headers()).expect("a status")
}

fn said(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_request_that_stands_still_or_drips_is_given_up() {
    let begun = Instant::now();
    let (code, reason, why) =
        told(post(CREATE).body(parts([message(9, 3), Part::Pause(999)])).unwrap()).await;
    assert_eq!((code, reason), said(Code::Cancelled, "REQUEST_INCOMPLETE"));
    assert!(why.contains("10 s") && begun.elapsed() <= 2 * IDLE, "{why} {:?}", begun.elapsed());
    let begun = Instant::now();
    let drips = (0..999).flat_map(|_| [Part::Data(vec![7]), Part::Pause(8)]);
    let (code, reason, why) =
        told(post(CREATE).body(parts([message(9_999, 3)].into_iter().chain(drips))).unwrap()).await;
    assert_eq!((code, reason), said(Code::Cancelled, "REQUEST_INCOMPLETE"));
    assert!(why.contains("60 s") && begun.elapsed() <= TOTAL + IDLE, "{why} {:?}", begun.elapsed());
    // Empty frames are not progress.
    let empty = (0..999).flat_map(|_| [Part::Data(Vec::new()), Part::Pause(1)]);
    let (_, _, why) = told(post(CREATE).body(parts([message(9, 3)].into_iter().chain(empty))).unwrap()).await;
    assert!(why.contains("10 s"), "{why}");
}

#[test]
fn a_large_message_has_longer() {
    let total = |most| unfinished::total(CREATE, most).as_secs();
    assert_eq!([total(1 << 10), total(1 << 20), total(64 << 20)], [60, 60, 256]);
}

#[tokio::test(start_paused = true)]
async fn a_callers_deadline_ends_a_request_that_is_not_whole() {
    for timeout in ["1n", "1u", "1m", "3m", "20m", "5S"] {
        let request = post(CREATE).header("grpc-timeout", timeout).body(parts([Part::Pause(999)])).unwrap();
        let (code, reason, _) = told(request).await;
        assert_eq!((code, reason), said(Code::DeadlineExceeded, "DEADLINE"), "{timeout}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_while_it_sends_is_cancelled() {
    let gone = [
        vec![Part::Error],
        vec![message(9, 3), Part::Error],
        // The message is complete, but the end of the stream is missing: it may not be meant.
        vec![message(3, 3), Part::Error],
        vec![message(9, 3), Part::Pause(1), Part::Error],
    ];
    for path in [CREATE, WATCH, "/grpc.health.v1.Health/Check", "/a.B/C"] {
        for (number, gone) in gone.iter().enumerate() {
            let gone = gone.iter().map(|part| match part {
                Part::Data(data) => Part::Data(data.clone()),
                Part::Error => Part::Error,
                Part::Pause(seconds) => Part::Pause(*seconds),
            });
            let (code, reason, _) = told(post(path).body(parts(gone)).unwrap()).await;
            assert_eq!((code, reason), said(Code::Cancelled, ""), "{path} {number}");
        }
    }
    // As the library reports a stream that was reset without an error.
    let reset = Parts { reset: true, ..parts([message(9, 3)]) };
    assert_eq!(told(post(CREATE).body(reset).unwrap()).await.0, Code::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_held_to_the_size_of_its_path_before_it_comes() {
    let limits = [
        (CREATE, 50_000),
        (WATCH, 1_024),
        ("/grpc.health.v1.Health/Check", 1_024),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", 8_192),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", 8_192),
        ("/somebody.added.This/Service", 4_096),
    ];
    for (path, most) in limits {
        // The length prefix alone is enough.
        let large = parts([message(most + 1, 0), Part::Pause(5)]);
        let begun = Instant::now();
        let (code, reason, _) = told(post(path).body(large).unwrap()).await;
        assert_eq!((code, reason), said(Code::ResourceExhausted, "PAYLOAD_TOO_LARGE"), "{path}");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let fits = parts([message(most, most as usize)]);
        let budget = MemoryBudget::new(SIZE);
        let response =
            admission(budget.connection()).call(post(path).header(REQUEST_ID, "x").body(fits).unwrap()).await;
        assert!(response.unwrap().headers().is_empty(), "{path}");
    }
    let two = parts([message(2, 2), message(2, 2)]);
    let (code, reason, why) = told(post("/somebody.added.This/Service").body(two).unwrap()).await;
    assert_eq!((code, reason), said(Code::InvalidArgument, "INVALID_REQUEST"));
    assert!(why.contains("one message"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn what_is_being_read_is_charged_and_one_request_too_many_is_shed() {
    let budget = MemoryBudget::new(SIZE);
    let service = admission(budget.connection());
    let (mut open, mut shed) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let half = parts([message(50_000, 40_000), Part::Pause(5)]);
        let mut call = service.clone().call(post(CREATE).body(half).unwrap());
        match (&mut call).now_or_never() {
            Some(answer) => shed.push(Status::from_header_map(answer.unwrap().headers()).unwrap()),
            None => open.push(call),
        }
    }
    // A connection's quarter has room for this many of them.
    assert_eq!((open.len(), shed.len()), (5, 7));
    for status in &shed {
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert!(details.retry_info().is_some(), "{status:?}");
        assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
    }
    let other = admission(budget.connection())
        .call(post(CREATE).body(parts([message(9, 3), Part::Pause(5)])).unwrap());
    assert!(other.now_or_never().is_none(), "another connection has its own part");
    drop(open);
    let again = service.clone().call(post(CREATE).body(parts([message(9, 3), Part::Pause(5)])).unwrap());
    assert!(again.now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_whole_are_counted_and_no_others() {
    let (budget, tally) = (MemoryBudget::new(SIZE), ConnectionMetrics::default());
    let service = admission(budget.counting(tally.clone()));
    let cases = [
        (vec![message(3, 3)], 1),
        (vec![message(3, 1), Part::Data(vec![7; 2])], 1),
        (vec![], 0),
        (vec![message(3, 2)], 0),
        (vec![message(3, 3), Part::Pause(9)], 0),
        (vec![message(3, 3), Part::Error], 0),
        (vec![message(50_001, 9)], 0),
    ];
    for (number, (sent, counts)) in cases.into_iter().enumerate() {
        let before = tally.whole.load(Ordering::Relaxed);
        let _ = service.call(post(CREATE).body(parts(sent)).unwrap()).now_or_never();
        assert_eq!(tally.whole.load(Ordering::Relaxed) - before, counts, "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_of_requests_that_are_refused_are_counted_and_no_others() {
    let (budget, tally) = (MemoryBudget::new(SIZE), ConnectionMetrics::default());
    let service = admission(budget.counting(tally.clone()));
    let cases = [
        (CREATE, vec![message(3, 3)], 0),
        (CREATE, vec![message(9, 3), Part::Error], 0),
        // Too large, according to its prefix.
        (CREATE, vec![message(50_001, 995), Part::Pause(9)], 1_000),
        (CREATE, vec![message(3, 3), Part::Data(vec![7; 92])], 100),
        // More than the connection's share: two parts, of which the second is refused.
        (CREATE, vec![message(50_000, 40_000), Part::Data(vec![7; 100_000])], 140_005),
    ];
    for (number, (path, sent, counts)) in cases.into_iter().enumerate() {
        let before = tally.wasted.load(Ordering::Relaxed);
        let _ = service.call(post(path).body(parts(sent)).unwrap()).now_or_never();
        assert_eq!(tally.wasted.load(Ordering::Relaxed) - before, counts, "{number}");
    }
    // A request refused at its beginning counts as if much of it were in transit.
    let half = || post(CREATE).body(parts([message(9, 3), Part::Pause(9)])).unwrap();
    let mut open: Vec<_> = (0..99).map(|_| Box::pin(service.call(half()))).collect();
    open.retain_mut(|call| call.now_or_never().is_none());
    assert!((1..99).contains(&open.len()));
    assert_eq!(tally.wasted.load(Ordering::Relaxed), 141_105 + (99 - open.len() as u64) * (64 << 10));
}

#[tokio::test(start_paused = true)]
async fn headers_are_charged_and_held_to_their_limit() {
    let long = "v".repeat(4_000);
    let (code, reason, why) = told(post(CREATE).header("x", &long).body(parts([])).unwrap()).await;
    assert_eq!((code, reason), said(Code::ResourceExhausted, "PAYLOAD_TOO_LARGE"));
    assert!(why.contains("over the limit of 4096"), "{why}");
    let budget = MemoryBudget::new(SIZE);
    let service = admission(budget.connection());
    let many = || (0..50).fold(post(CREATE), |call, number| call.header(format!("h-{number}"), "v"));
    let calls = (0..100).map(|_| service.clone().call(many().body(parts([Part::Pause(9)])).unwrap()));
    let open = calls.map(|call| call.now_or_never()).filter(Option::is_none).count();
    assert_eq!(open, 100, "what was dropped is given back");
    let calls: Vec<_> =
        (0..100).map(|_| service.clone().call(many().body(parts([Part::Pause(9)])).unwrap())).collect();
    let open = calls
        .into_iter()
        .map(|mut call| ((&mut call).now_or_never().is_none(), call))
        .filter(|(open, _)| *open);
    assert!((10..30).contains(&open.collect::<Vec<_>>().len()), "a quarter of a MiB");
}

#[tokio::test(start_paused = true)]
async fn health_has_little_time_to_come_whole() {
    let budget = MemoryBudget::new(SIZE);
    for (path, seconds) in [("/grpc.health.v1.Health/Check", 2), (CREATE, 10)] {
        let half = parts([message(9, 3), Part::Pause(999)]);
        let mut call = admission(budget.connection()).call(post(path).body(half).unwrap());
        assert!((&mut call).now_or_never().is_none());
        advance(Duration::from_millis(seconds * 1_000 - 10)).await;
        assert!((&mut call).now_or_never().is_none(), "{path}");
        advance(Duration::from_millis(20)).await;
        let answer = call.now_or_never().expect("it is given up").unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "REQUEST_INCOMPLETE", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_whole_at_the_end_is_turned_away() {
    let (budget, hurry) = (MemoryBudget::new(SIZE), CancellationToken::new());
    let service = Admission::new(4_096, [(CREATE.to_owned(), 50_000)], hurry.clone())
        .before(Reader, budget.connection());
    let mut half = service.call(post(CREATE).body(parts([message(9, 3), Part::Pause(999)])).unwrap());
    let mut whole = service.call(post(CREATE).body(parts([message(3, 3)])).unwrap());
    assert!((&mut half).now_or_never().is_none() && (&mut whole).now_or_never().is_none());
    hurry.cancel();
    let status = Status::from_header_map(half.await.unwrap().headers()).unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    advance(Duration::from_secs(3_600)).await;
    assert!(whole.now_or_never().is_none(), "its handler keeps its own time");
}
