//! Watches of several callers: no caller takes all of a shared limit.

use std::sync::Arc;

use contract::orders::v1 as pb;
use wire::{Failure, Reason};

use super::super::Limits;
use super::super::fixture::{Fixture, soon};
use super::{SMALL, Watch, bookmark, next, place, resume, watch};
use bridge::call::CallContext;
use bridge::share::{ShareKind, Shares};

/// A call of the holder of these shares.
fn by(shares: &Arc<Shares>) -> CallContext {
    CallContext { hold: shares.take(ShareKind::CALLS, 100).map(Arc::new), ..soon() }
}

async fn watch_by(fixture: &Fixture, token: &str, who: &Arc<Shares>) -> Result<Watch, Failure> {
    let (whose, from, place) = fixture.orders.follow(resume(token), by(who)).await?;
    Ok(Box::pin(fixture.feed.watch(whose, from, place)?))
}

/// The first message after the bookmark of a watch that resumes.
async fn resumed(watch: &mut Watch) -> Result<pb::WatchOrdersResponse, Failure> {
    bookmark(watch).await;
    next(watch).await
}

#[tokio::test]
async fn slow_resumed_watches_of_one_caller_leave_the_history_to_others() {
    let fixture = Fixture::with(Limits { watches: 64, replays: 4, ..SMALL }).await;
    let begin = bookmark(&mut watch((&fixture.feed, &fixture.orders), resume("")).await.unwrap()).await;
    // More than the queue of a replay and the ring hold.
    place(&fixture, 0..60).await;
    let (ann, bob) = (Shares::of_caller(), Shares::of_caller());
    let (mut slow, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        let mut watch = watch_by(&fixture, &begin, &ann).await.unwrap();
        match resumed(&mut watch).await {
            Ok(_) => slow.push(watch),
            Err(failure) => refused.push(failure),
        }
    }
    assert_eq!((slow.len(), refused.len()), (2, 6));
    assert!(refused.iter().all(|failure| failure.is(Reason::QuotaExceeded)), "{refused:?}");
    assert!(refused[0].metadata.contains_key("resume_token"));
    let mut bobs = watch_by(&fixture, &begin, &bob).await.unwrap();
    resumed(&mut bobs).await.expect("Bob's history");
}

#[tokio::test]
async fn watches_of_one_caller_leave_places_to_others() {
    let fixture = Fixture::with(SMALL).await;
    let (ann, bob) = (Shares::of_caller(), Shares::of_caller());
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(watch_by(&fixture, "", &ann).await.unwrap());
    }
    assert!(watch_by(&fixture, "", &ann).await.err().unwrap().is(Reason::QuotaExceeded));
    open.push(watch_by(&fixture, "", &bob).await.unwrap());
}
