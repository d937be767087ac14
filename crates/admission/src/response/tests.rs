//! Responses that are read piece by piece, late, or never.

use std::task::Waker;

use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use http::HeaderMap;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time::advance;

use super::*;
use crate::budget::{ConnectionBudget, MemoryBudget, Size};
use crate::request::Arrival;
use crate::unsent::PERIODS;

const LARGE: usize = 200 << 10;

fn budget() -> MemoryBudget {
    let size = Size {
        all: 1 << 20,
        request: 1 << 10,
        answers: 1 << 20,
        answer: 9,
        streams: [1, 1],
        connection_streams: [1, 1],
    };
    MemoryBudget::new(size)
}

/// A response with messages of these sizes; a 0 is a pause.
fn answer(connection: &Arc<ConnectionBudget>, messages: impl IntoIterator<Item = usize>) -> ResponseBody {
    let call = Arc::new(RequestState::new(connection.begin(6 << 10).unwrap(), Arrival::now(), 0));
    let frame = |size| async move {
        if size == 0 {
            sleep(Duration::from_secs(1)).await;
        }
        Ok(Frame::data(vec![7; size].into()))
    };
    let messages: Vec<_> = messages.into_iter().collect();
    let end = stream::iter([Ok::<_, Status>(Frame::trailers(HeaderMap::new()))]);
    let body = StreamBody::new(Box::pin(stream::iter(messages).then(frame).chain(end)));
    ResponseBody::begin(Body::new(body), call, Some(4 << 10), &mut Context::from_waker(Waker::noop()))
}

/// All pieces that are passed on, to the end.
async fn pieces(answer: ResponseBody) -> Vec<Bytes> {
    let frames = answer.into_data_stream().map(Result::unwrap);
    frames.filter(|data| std::future::ready(!data.is_empty())).collect().await
}

fn unread(budget: &MemoryBudget) -> f64 {
    let mut page = telemetry::Exposition::default();
    telemetry::Source::collect(budget, &mut page);
    page.number("gateway_answer_bytes", &[])
}

fn refused(connection: &Arc<ConnectionBudget>) -> String {
    connection.begin(1).map(drop).unwrap_err().message
}

#[tokio::test]
async fn an_answer_is_charged_until_the_last_of_it_is_written() {
    let budget = budget();
    let connection = budget.connection();
    // Before anybody reads it.
    let large = answer(&connection, [LARGE]);
    assert_eq!((unread(&budget), connection.idle()), (LARGE as f64, false));
    let mut pieces = pieces(large).await;
    assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
    assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), LARGE);
    while let Some(piece) = pieces.pop() {
        assert!(unread(&budget) >= piece.len() as f64 && !connection.idle());
    }
    assert_eq!((unread(&budget), connection.idle()), (0.0, true));
    // A response that is never read, and is dropped with its connection.
    drop(answer(&connection, [LARGE]));
    assert_eq!((unread(&budget), connection.idle()), (0.0, true));
}

#[tokio::test]
async fn a_small_answer_keeps_what_its_call_was_charged() {
    let budget = budget();
    let connection = budget.connection();
    let pieces = pieces(answer(&connection, [4 << 10])).await;
    assert_eq!((unread(&budget), connection.idle(), pieces.len()), (0.0, false, 1));
    drop(pieces);
    assert!(connection.idle());
}

#[tokio::test]
async fn what_an_answer_keeps_is_let_go_when_it_is_written() {
    let connection = budget().connection();
    let (kept, large) = (Arc::new(()), answer(&connection, [LARGE]));
    large.call.as_ref().unwrap().keep(HeldUntilSent::new(kept.clone()));
    let pieces = pieces(large).await;
    assert_eq!(Arc::strong_count(&kept), 2);
    drop(pieces);
    assert_eq!(Arc::strong_count(&kept), 1);
}

#[tokio::test]
async fn whose_answers_lie_unread_begins_nothing_new_and_others_do() {
    let budget = budget();
    let (one, two) = (budget.connection(), budget.connection());
    let lies = answer(&one, [2 * LARGE]);
    assert!(refused(&one).contains("unread responses"), "{}", refused(&one));
    assert!(two.begin(1).is_ok());
    // A caller's responses, on any connection.
    let (ann, bob) = (Arc::default(), Arc::default());
    let call = two.begin(1).unwrap();
    call.owned(&ann).unwrap();
    call.owe(LARGE * 2);
    let three = budget.connection();
    let refused = three.begin(1).unwrap().owned(&ann).unwrap_err();
    assert!(refused.is(wire::Reason::QuotaExceeded) && refused.certainty() == wire::Delivered::No);
    assert!(three.begin(1).unwrap().owned(&bob).is_ok());
    call.paid(LARGE * 2);
    drop((lies, call));
    assert!(one.begin(1).unwrap().owned(&ann).is_ok());
}

#[tokio::test]
async fn an_answer_of_which_nothing_is_taken_is_noticed_and_one_that_is_taken_slowly_is_not() {
    let connection = budget().connection();
    let mut slow = pieces(answer(&connection, [8 * PIECE])).await;
    while slow.len() > 1 {
        assert!((0..PERIODS - 2).all(|_| !connection.turn()), "{}", slow.len());
        slow.pop();
    }
    assert!((0..PERIODS - 2).all(|_| !connection.turn()));
    assert!(connection.turn());
    drop(slow);
    assert!((0..3 * PERIODS).all(|_| !connection.turn()));
    let _never = answer(&connection, [1]);
    assert!((0..PERIODS).any(|_| connection.turn()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_gives_back_its_calls_charge_and_waits_while_others_lie_unread() {
    let budget = budget();
    let connection = budget.connection();
    let mut stream = answer(&connection, [9, 0, LARGE, 0, 9]);
    let first = stream.frame().await.unwrap().unwrap();
    assert!(stream.frame().now_or_never().is_none());
    let mut page = telemetry::Exposition::default();
    telemetry::Source::collect(&budget, &mut page);
    assert!(page.number("gateway_request_bytes", &[]) <= 1.0 && !connection.idle());
    let lies = answer(&connection, [LARGE]);
    assert!(stream.frame().await.is_some(), "the pause's own frame");
    let large = stream.frame().await.unwrap().unwrap();
    // The rest of the current frame is passed on; no other is polled.
    let rest: Vec<_> = std::iter::from_fn(|| stream.frame().now_or_never()).take(LARGE).collect();
    assert_eq!(rest.len(), LARGE.div_ceil(PIECE) - 1);
    advance(Duration::from_secs(9)).await;
    assert!(stream.frame().now_or_never().is_none());
    drop((first, large, rest, lies));
    assert!(stream.frame().await.unwrap().unwrap().is_data());
}
