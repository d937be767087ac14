//! The bridge against a real nats-server, with misbehaving services.

use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_nats::{Client, HeaderMap, Message};
use catalog::Codec;
use futures_util::StreamExt;
use wire::failure::Detail;
use wire::header;

use super::*;
use crate::call::Limit;

/// Some catalog.
pub(crate) fn contract() -> Arc<Catalog> {
    Catalog::builder(contract::DESCRIPTORS).trusted().build().unwrap()
}

/// A bridge with one route, and a nats-server for it.
struct Bench {
    server: local_nats::Server,
    service: Client,
    bridge: Bridge,
    route: Arc<Route>,
}

/// Payloads are the messages; the function tells which requests may be sent again.
#[derive(Debug)]
struct Raw(fn(&[u8]) -> bool);

impl Codec for Raw {
    fn request(&self, protobuf: &[u8]) -> Result<Vec<u8>, catalog::CodecError> {
        Ok(protobuf.to_vec())
    }

    fn reply(&self, payload: &[u8]) -> Result<Vec<u8>, catalog::CodecError> {
        Ok(payload.to_vec())
    }

    fn repeatable(&self, request: &[u8]) -> bool {
        (self.0)(request)
    }
}

impl Bench {
    async fn start(change: impl FnOnce(&mut Route)) -> Bench {
        let server = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
        let catalog = contract();
        let mut route = Route::clone(&catalog.routes()[0]);
        route.subject = catalog::Subject::fixed("service.test").unwrap();
        route.timeout = Duration::from_millis(200);
        change(&mut route);
        let route = Arc::new(route);
        let link = Connection::connect(&nats::Options::at(server.url()), "test").await.unwrap();
        let service = async_nats::connect(server.url()).await.unwrap();
        let states = RouteStates::new(catalog, [&route], &Limits { in_flight: 4, ..Limits::default() });
        Bench { server, service, bridge: Bridge::new(link, Arc::new(states)), route }
    }

    /// Serves the route: each request is answered with the result of `answer`, if any.
    async fn serve<F: Future<Output = Option<(HeaderMap, Vec<u8>)>> + Send + 'static>(
        &self,
        mut answer: impl FnMut(usize, Message) -> F + Send + 'static,
    ) -> Arc<AtomicUsize> {
        let mut requests = self.service.subscribe(self.route.subject.to_string()).await.unwrap();
        // The echo shows that the server has processed the subscription.
        let mut echo = self.service.subscribe("echo").await.unwrap();
        self.service.publish("echo", Bytes::new()).await.unwrap();
        echo.next().await.unwrap();
        let (client, count) = (self.service.clone(), Arc::new(AtomicUsize::new(0)));
        let counter = count.clone();
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let number = counter.fetch_add(1, Ordering::Relaxed);
                let reply = request.reply.clone().unwrap();
                if let Some((headers, payload)) = answer(number, request).await {
                    client.publish_with_headers(reply, headers, payload.into()).await.unwrap();
                }
            }
        });
        count
    }

    /// The number of hedges: a machine that stalls for a moment causes some.
    fn hedges(&self) -> usize {
        let metrics = self.bridge.counts.of(&self.route).unwrap();
        usize::try_from(metrics.hedges.get()).unwrap()
    }

    async fn call(&self, call: &CallContext) -> Result<Bytes, Failure> {
        self.bridge.call(&self.route, b"hello".to_vec(), call).await
    }
}

/// Waits until something holds, and panics if it takes too long.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < limit, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn within(millis: u64, limit: Limit) -> CallContext {
    CallContext { limit, ..CallContext::until(Instant::now() + Duration::from_millis(millis)) }
}

fn delivered(failure: &Failure) -> &str {
    failure.delivered.map_or("", Delivered::name)
}

fn refusal(reason: Reason) -> (HeaderMap, Vec<u8>) {
    let failure = Failure::new(reason, "no");
    let mut headers = HeaderMap::new();
    headers.insert(header::SERVICE_ERROR, "no");
    headers.insert(header::SERVICE_ERROR_CODE, failure.number().to_string());
    (headers, failure.to_json())
}

#[tokio::test]
async fn an_answer_comes_back_and_headers_went_along() {
    let bench = Bench::start(|_| ()).await;
    let (seen, mut headers) = tokio::sync::mpsc::channel(1);
    bench
        .serve(move |_, request| {
            seen.try_send(request.headers.unwrap()).unwrap();
            ready(Some((HeaderMap::new(), request.payload.to_vec())))
        })
        .await;
    let mut call = within(1_000, Limit::Caller);
    call.request_id = Some("r-1".into());
    call.principal = "ann".into();
    call.trace = vec![(header::TRACEPARENT, "00-a-b-01".into())];
    assert_eq!(bench.call(&call).await.unwrap(), "hello");
    let headers = headers.recv().await.unwrap();
    let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default();
    assert_eq!([text(header::REQUEST_ID), text(header::PRINCIPAL)], ["r-1", "ann"]);
    assert_eq!([text(header::TRACEPARENT), text(header::CONTENT_TYPE)], ["00-a-b-01", "application/json"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let left = text(header::REQUEST_DEADLINE).parse::<u128>().unwrap().saturating_sub(now);
    assert!((1..=200).contains(&left), "the attempt's time, not the call's: {left}");
}

#[tokio::test]
async fn nobody_there_is_said_as_such_after_every_attempt() {
    let bench = Bench::start(|route| route.retries = 2).await;
    let failure = bench.call(&within(5_000, Limit::Budget)).await.unwrap_err();
    assert!(failure.is(Reason::NoResponders), "{failure}");
    assert_eq!(delivered(&failure), "no");
}

#[tokio::test]
async fn a_service_that_comes_back_is_found_by_a_repeat() {
    let bench = Bench::start(|route| (route.retries, route.repeatable) = (9, false)).await;
    let (bridge, route) = (bench.bridge.clone(), bench.route.clone());
    let call =
        tokio::spawn(async move { bridge.call(&route, Vec::new(), &within(9_000, Limit::Budget)).await });
    let metrics = bench.bridge.counts.of(&bench.route).unwrap();
    until("an attempt found nobody", || metrics.absent.get() > 0).await;
    bench.serve(|_, _| ready(Some((HeaderMap::new(), b"back".to_vec())))).await;
    assert_eq!(call.await.unwrap().unwrap(), "back");
}

#[tokio::test]
async fn silence_is_repeated_only_where_a_repeat_does_no_harm() {
    for (repeatable, attempts) in [(true, 3), (false, 1)] {
        let bench = Bench::start(|route| (route.retries, route.repeatable) = (2, repeatable)).await;
        let count = bench.serve(|_, _| ready(None)).await;
        let failure = bench.call(&within(10_000, Limit::Budget)).await.unwrap_err();
        assert!(failure.is(Reason::Timeout), "{failure}");
        assert_eq!((delivered(&failure), count.load(Ordering::Relaxed)), ("unknown", attempts));
    }
}

#[tokio::test]
async fn whose_time_was_up_is_told_apart() {
    let bench = Bench::start(|route| route.timeout = Duration::from_secs(20)).await;
    bench.serve(|_, _| ready(None)).await;
    for (limit, reason) in [(Limit::Caller, Reason::Deadline), (Limit::Budget, Reason::Timeout)] {
        let start = Instant::now();
        let failure = bench.call(&within(100, limit)).await.unwrap_err();
        assert!(failure.is(reason) && start.elapsed() < Duration::from_secs(2), "{failure}");
        assert_eq!(delivered(&failure), "unknown");
        let over = bench.call(&within(0, limit)).await.unwrap_err();
        assert_eq!((over.is(reason), delivered(&over)), (true, "no"));
    }
    assert_eq!(bench.bridge.connection().waiting(), 0);
}

#[tokio::test]
async fn what_may_have_been_delivered_once_stays_so() {
    let bench = Bench::start(|route| route.retries = 1).await;
    let count = bench
        .serve(|number, _| {
            let mut away = refusal(Reason::Draining);
            away.1 = Failure::new(Reason::Draining, "bye").delivered(Delivered::No).to_json();
            ready((number > 0).then_some(away))
        })
        .await;
    let failure = bench.call(&within(5_000, Limit::Budget)).await.unwrap_err();
    assert_eq!(count.load(Ordering::Relaxed), 2);
    assert!(failure.is(Reason::Draining), "{failure}");
    assert_eq!(delivered(&failure), "unknown");
}

#[tokio::test]
async fn a_refusal_is_final_unless_the_service_is_away() {
    for (reason, attempts) in
        [(Reason::NotFound, 1), (Reason::Overloaded, 1), (Reason::StorageUnavailable, 4)]
    {
        let bench = Bench::start(|_| ()).await;
        let count = bench.serve(move |_, _| ready(Some(refusal(reason)))).await;
        let failure = bench.call(&within(5_000, Limit::Budget)).await.unwrap_err();
        assert!(failure.is(reason), "{failure}");
        assert_eq!(count.load(Ordering::Relaxed) - bench.hedges(), attempts, "{reason}");
    }
}

#[tokio::test]
async fn one_call_too_many_is_turned_away_at_once() {
    let bench = Bench::start(|route| route.timeout = Duration::from_secs(5)).await;
    bench.serve(|_, _| ready(None)).await;
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (bridge, route) = (bench.bridge.clone(), bench.route.clone());
            tokio::spawn(async move { bridge.call(&route, Vec::new(), &within(5_000, Limit::Budget)).await })
        })
        .collect();
    until("all wait for a reply", || bench.bridge.connection().waiting() >= 4).await;
    let start = Instant::now();
    // Its message is not decoded, either.
    let garbage = bench.bridge.pass(&bench.route, &[0xff], &within(5_000, Limit::Budget)).await.unwrap_err();
    assert!(garbage.is(Reason::Overloaded), "{garbage}");
    let failure = bench.call(&within(5_000, Limit::Budget)).await.unwrap_err();
    assert!(failure.is(Reason::Overloaded) && start.elapsed() < Duration::from_secs(2), "{failure}");
    assert!(failure.details.iter().any(|detail| matches!(detail, Detail::Retry(_))));
    // Callers that cancel release their permits.
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    for call in calls {
        assert!(call.await.unwrap_err().is_cancelled());
    }
    assert_eq!(bench.bridge.connection().waiting(), 0);
    assert!(!bench.call(&within(20, Limit::Budget)).await.unwrap_err().is(Reason::Overloaded));
}

#[tokio::test]
async fn a_reply_that_does_not_fit_is_a_violation() {
    let bench = Bench::start(|_| ()).await;
    bench.serve(|_, _| ready(Some((HeaderMap::new(), b"[nonsense".to_vec())))).await;
    let failure = bench.bridge.pass(&bench.route, &[], &within(1_000, Limit::Budget)).await.unwrap_err();
    assert!(failure.is(Reason::ContractViolation), "{failure}");
    let failure = bench.bridge.pass(&bench.route, &[0xff], &within(1_000, Limit::Budget)).await.unwrap_err();
    assert!(failure.is(Reason::InvalidRequest), "{failure}");
}

#[tokio::test]
async fn a_payload_over_the_limit_is_not_sent() {
    let bench = Bench::start(|_| ()).await;
    let call = within(1_000, Limit::Budget);
    let failure = bench.bridge.call(&bench.route, vec![b'x'; 2 << 20], &call).await.unwrap_err();
    assert!(failure.is(Reason::PayloadTooLarge), "{failure}");
    assert_eq!(failure.metadata["limit"], (1 << 20).to_string());
}

#[tokio::test]
async fn without_a_connection_calls_end_at_once() {
    let mut bench = Bench::start(|_| ()).await;
    bench.server.kill();
    until("the connection is lost", || !bench.bridge.connection().connected()).await;
    let start = Instant::now();
    for _ in 0..1_000 {
        let failure = bench.call(&within(5_000, Limit::Budget)).await.unwrap_err();
        assert!(failure.is(Reason::NatsDisconnected), "{failure}");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_a_service_did_not_begin_as_too_late_is_repeated_while_there_is_time() {
    let bench = Bench::start(|route| (route.retries, route.repeatable) = (3, false)).await;
    let count = bench
        .serve(|number, request| {
            let mut late = refusal(Reason::Timeout);
            late.1 = Failure::new(Reason::Timeout, "late").delivered(Delivered::No).to_json();
            ready(if number < 2 { Some(late) } else { Some((HeaderMap::new(), request.payload.to_vec())) })
        })
        .await;
    assert_eq!(bench.call(&within(5_000, Limit::Budget)).await.unwrap(), "hello");
    assert!(count.load(Ordering::Relaxed) >= 3);
}

#[tokio::test]
async fn a_streams_acknowledgement_is_no_answer() {
    let bench = Bench::start(|_| ()).await;
    let acks =
        [r#"{"stream":"ALL","seq":7}"#, r#"{"stream":"ALL", "domain":"x", "seq":7,"duplicate": true}"#];
    bench.serve(move |number, _| ready(Some((HeaderMap::new(), acks[number % 2].as_bytes().to_vec())))).await;
    for _ in acks {
        let failure = bench.bridge.pass(&bench.route, &[], &within(1_000, Limit::Budget)).await.unwrap_err();
        assert!(failure.is(Reason::ContractViolation), "{failure}");
        assert_eq!(delivered(&failure), "unknown");
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_repeated_only_where_the_request_itself_may_be_sent_twice() {
    let bench = Bench::start(|route| {
        (route.repeatable, route.retries) = (true, 1);
        route.codec = Arc::new(Raw(|bytes| bytes == b"with an id"));
    })
    .await;
    let count = bench.serve(|_, _| ready(None)).await;
    for (request, attempts) in [("without", 1), ("with an id", 2)] {
        let call = within(5_000, Limit::Budget);
        let failure = bench.bridge.pass(&bench.route, request.as_bytes(), &call).await.unwrap_err();
        assert!(failure.is(Reason::Timeout), "{failure}");
        assert_eq!(count.swap(0, Ordering::Relaxed), attempts, "{request}");
    }
}

/// A bridge whose route was answered once, and whose service does not answer the next `first` requests.
async fn silent(first: usize, repeats: fn(&[u8]) -> bool) -> (Bench, Arc<AtomicUsize>) {
    let bench = Bench::start(|route| {
        (route.repeatable, route.retries, route.timeout) = (true, 3, Duration::from_secs(20));
        route.codec = Arc::new(Raw(repeats));
    })
    .await;
    let count = bench
        .serve(move |number, request| {
            let answered = number == 0 || number > first;
            ready(answered.then(|| (HeaderMap::new(), request.payload.to_vec())))
        })
        .await;
    bench.bridge.pass(&bench.route, b"one", &within(5_000, Limit::Budget)).await.unwrap();
    (bench, count)
}

#[tokio::test]
async fn what_goes_unanswered_far_longer_than_usual_is_sent_again_while_it_stays_open() {
    let (bench, count) = silent(3, |_| true).await;
    let begun = Instant::now();
    let call = within(20_000, Limit::Budget);
    assert_eq!(bench.bridge.pass(&bench.route, b"two", &call).await.unwrap().message, b"two");
    assert!(
        (3 * latency::FLOOR..Duration::from_secs(10)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    assert!(count.load(Ordering::Relaxed) >= 5);
    assert_eq!(bench.bridge.connection().waiting(), 0);
    let metrics = bench.bridge.counts.of(&bench.route).unwrap();
    assert!(metrics.hedges.get() >= 3 && metrics.retries.get() == 0);
    assert_eq!(metrics.hedges_won.get(), 1);
}

#[tokio::test]
async fn hedges_that_are_lost_with_the_connection_cost_nothing() {
    let (mut bench, _) = silent(usize::MAX, |_| true).await;
    let (bridge, route) = (bench.bridge.clone(), bench.route.clone());
    let call = tokio::spawn(async move { bridge.pass(&route, b"two", &within(20_000, Limit::Budget)).await });
    until("there are hedges", || bench.hedges() >= 3).await;
    bench.server.kill();
    assert!(call.await.unwrap().is_err());
    let state = bench.bridge.states.of(&bench.route).unwrap();
    assert_eq!((0..100).take_while(|_| state.retry()).count(), 10);
}

#[tokio::test]
async fn what_may_not_be_done_twice_is_never_sent_twice() {
    let (bench, count) = silent(usize::MAX, |bytes| bytes == b"with an id").await;
    for (request, hedged) in [("without", false), ("with an id", true)] {
        count.store(1, Ordering::Relaxed);
        let failure =
            bench.bridge.pass(&bench.route, request.as_bytes(), &within(1_500, Limit::Budget)).await;
        let failure = failure.unwrap_err();
        assert_eq!((failure.is(Reason::Timeout), delivered(&failure)), (true, "unknown"), "{failure}");
        assert_eq!(count.load(Ordering::Relaxed) > 2, hedged, "{request}");
    }
}

#[tokio::test]
async fn a_refusal_beside_a_request_that_may_be_done_leaves_open_what_was_done() {
    let bench = Bench::start(|route| (route.retries, route.timeout) = (1, Duration::from_secs(20))).await;
    let mut away = refusal(Reason::NotFound);
    away.1 = Failure::new(Reason::NotFound, "no").delivered(Delivered::No).to_json();
    bench
        .serve(move |number, _| {
            let answer = if number == 0 { (HeaderMap::new(), Vec::new()) } else { away.clone() };
            ready((number != 1).then_some(answer))
        })
        .await;
    bench.call(&within(5_000, Limit::Budget)).await.unwrap();
    let failure = bench.call(&within(20_000, Limit::Budget)).await.unwrap_err();
    assert_eq!((failure.is(Reason::NotFound), delivered(&failure)), (true, "unknown"), "{failure}");
}
