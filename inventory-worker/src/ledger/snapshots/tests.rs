//! Large and unfinished snapshots.

use std::time::Duration;

use nats::Options;
use tokio::time::sleep;

use super::*;

/// Moves so many pieces, one after each pause.
async fn pieces(count: u64, pause: Duration) -> Result<(), String> {
    let moved = AtomicU64::new(0);
    let work = async {
        for _ in 0..count {
            sleep(pause).await;
            moved.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<(), String>(())
    };
    moving(&moved, work).await
}

#[tokio::test(start_paused = true)]
async fn a_large_snapshot_may_take_longer_than_a_small_one_as_long_as_it_moves() {
    pieces(400, PIECE * 9 / 10).await.expect("six minutes for 50 MiB");
    let stalled = pieces(1, PIECE_IDLE * 3).await.unwrap_err();
    assert!(stalled.contains("after 0 pieces"), "{stalled}");
    let begun = Instant::now();
    let slow = pieces(400, PIECE_IDLE * 9 / 10).await.unwrap_err();
    assert!(slow.contains("took longer") && begun.elapsed() < 2 * SNAPSHOT, "{slow}");
}

#[tokio::test]
async fn what_is_left_of_a_try_that_failed_is_removed_and_a_snapshot_and_one_being_written_are_not() {
    let server = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
    let link = Connection::connect(&Options::at(server.url()), "test").await.unwrap();
    order_streams::open(&link, 1, true).await.unwrap();
    let snapshots = Snapshots::open(&link).await.unwrap();
    snapshots.write(Stock::default()).await.unwrap();
    let orphan = format!("$O.{}.C.orphan", order_streams::SNAPSHOT_BUCKET);
    for _ in 0..3 {
        snapshots.context.publish(orphan.clone(), "half".into()).await.unwrap().await.unwrap();
    }
    let there = async || {
        let subjects = snapshots.store.subjects(&orphan, Instant::now() + SNAPSHOT).await.unwrap();
        !subjects.is_empty()
    };
    // The clock is JetStream's, which is told by now.
    snapshots.store.range(Instant::now() + SNAPSHOT).await.unwrap();
    snapshots.sweep(ABANDONED).await.unwrap();
    assert!(there().await, "it may still be written");
    snapshots.sweep(Duration::ZERO).await.unwrap();
    assert!(!there().await);
    assert!(snapshots.newest().await.unwrap().is_some(), "the snapshot is whole");
}
