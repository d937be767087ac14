//! Tests of the limiter of control frames.

use std::future::poll_fn;

use tokio::time::advance;

use super::*;

fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
    frame.extend(std::iter::repeat_n(9, length.into()));
    frame
}

/// A limiter that has seen the preface and then these bytes.
async fn after(bytes: &[u8]) -> FrameLimiter {
    let mut patrol = FrameLimiter::new(Arc::default());
    patrol.look(&[0; PREFACE]);
    read(&mut patrol, bytes).await;
    patrol
}

async fn read(patrol: &mut FrameLimiter, bytes: &[u8]) {
    poll_fn(|context| {
        patrol.read(bytes, context);
        Poll::Ready(())
    })
    .await;
}

async fn passes(patrol: &mut FrameLimiter) -> bool {
    poll_fn(|context| Poll::Ready(patrol.pass(context).is_ready())).await
}

#[test]
fn heads_are_found_wherever_reads_begin_and_end() {
    let frames = [frame(HEADERS, 4, 30), frame(DATA, 1, 7), frame(PING, 0, 8), frame(4, 1, 0)].concat();
    let bytes = [&[b'P'; PREFACE][..], &frames].concat();
    for step in 1..bytes.len() {
        let (mut patrol, mut all) = (FrameLimiter::new(Arc::default()), Found::default());
        for part in bytes.chunks(step) {
            let found = patrol.look(part);
            all = Found {
                frames: all.frames + found.frames,
                calls: all.calls + found.calls,
                cost: all.cost + found.cost,
            };
        }
        assert_eq!(all, Found { frames: 4, calls: 1, cost: 4 }, "{step}");
    }
}

#[test]
fn a_header_block_is_open_until_the_last_byte_of_its_last_frame() {
    let block = |flags, more: u8| [frame(HEADERS, flags, 30), frame(9, 4 * (1 - more.min(1)), 7)].concat();
    for (bytes, whole) in [
        (frame(HEADERS, 4, 30), true),
        (frame(HEADERS, 0, 30), false),
        (block(0, 0), true),
        (block(0, 1), false),
        ([block(0, 0), frame(PING, 0, 8)].concat(), true),
        ([block(0, 0), frame(HEADERS, 1, 0)].concat(), false),
    ] {
        for step in [1, 7, bytes.len()] {
            let mut patrol = FrameLimiter::new(Arc::default());
            patrol.look(&[0; PREFACE]);
            for part in bytes.chunks(step) {
                patrol.look(part);
            }
            assert_eq!(patrol.open_block().is_none(), whole, "{step} {bytes:?}");
        }
        let mut patrol = FrameLimiter::new(Arc::default());
        patrol.look(&[&[0; PREFACE], &bytes[..HEAD + 20]].concat());
        assert_eq!(patrol.open_block(), Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn who_floods_waits_and_goes_on_at_a_rate() {
    let full = usize::try_from(FULL).unwrap();
    for one in [frame(PING, 0, 8), frame(4, 0, 0), frame(2, 0, 5), frame(DATA, 0, 0), frame(0xbb, 0, 0)] {
        let mut patrol = after(&one.repeat(full)).await;
        assert!(passes(&mut patrol).await, "{one:?}");
        let mut patrol = after(&one.repeat(full + 1_024)).await;
        assert!(!passes(&mut patrol).await, "{one:?}");
        advance(Duration::from_millis(990)).await;
        assert!(!passes(&mut patrol).await, "{one:?}");
        advance(Duration::from_millis(20)).await;
        assert!(passes(&mut patrol).await, "{one:?}");
    }
}

/// Sends calls one after another, each admitted when it is read.
async fn call(patrol: &mut FrameLimiter, frames: &[u8], times: i64, refused: bool) {
    for _ in 0..times {
        read(patrol, frames).await;
        patrol.toll.called();
        if refused {
            patrol.toll.refused();
        }
        // All but the cost of the last one.
        let _ = passes(patrol).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_calls_never_waits() {
    let small =
        [frame(HEADERS, 4, 30), frame(DATA, 0, 20), frame(DATA, 1, 0), frame(8, 0, 4), frame(PING, 0, 8)];
    let mut patrol = after(&[]).await;
    call(&mut patrol, &small.concat(), 100_000, false).await;
    assert!(passes(&mut patrol).await);
    // As many at once as a connection allows, admitted while the first ones wait.
    let mut patrol = after(&small.concat().repeat(1_024)).await;
    assert!(!passes(&mut patrol).await);
    (0..1_024).for_each(|_| patrol.toll.called());
    assert!(passes(&mut patrol).await);
    // A large message, and a long response, each part of which the client acknowledges twice.
    let mut patrol = after(&[]).await;
    for _ in 0..100_000 {
        let mut large = vec![0, 0x40, 0, DATA, 0, 0, 0, 0, 1];
        large.resize(9 + (16 << 10), 0);
        read(&mut patrol, &large).await;
        patrol.wrote(80);
        read(&mut patrol, &frame(8, 0, 4).repeat(2)).await;
    }
    assert!(passes(&mut patrol).await);
}

#[tokio::test(start_paused = true)]
async fn frames_that_carry_little_or_padding_cost() {
    let full = usize::try_from(FULL).unwrap();
    for one in [frame(DATA, 0, 1), frame(DATA, 1, 0), frame(DATA, PADDED, 255), frame(9, 0, 1)] {
        assert!(passes(&mut after(&one.repeat(full)).await).await, "{one:?}");
        assert!(!passes(&mut after(&one.repeat(full + 1)).await).await, "{one:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_changes_all_windows_again_and_again_waits() {
    let settings = frame(SETTINGS, 0, 6);
    assert!(passes(&mut after(&settings.repeat(4)).await).await);
    assert!(!passes(&mut after(&settings.repeat(5)).await).await);
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_only_reset_or_refused_cost() {
    let pair = [frame(HEADERS, 4, 30), frame(RST_STREAM, 0, 4)].concat();
    let mut patrol = after(&[]).await;
    call(&mut patrol, &pair, FULL, false).await;
    assert_eq!(patrol.credit, 0);
    let one = [frame(HEADERS, 4, 30), frame(DATA, 1, 5)].concat();
    let mut patrol = after(&[]).await;
    call(&mut patrol, &one, 50, true).await;
    assert!(patrol.credit > 0, "{patrol:?}");
    call(&mut patrol, &one, 100, true).await;
    assert!(!passes(&mut patrol).await, "{patrol:?}");
}

/// Resets calls one after another, after (`whole`) or before their request has arrived completely.
async fn give_up(patrol: &mut FrameLimiter, whole: bool, times: i64) {
    let call = [frame(HEADERS, 4, 30), frame(DATA, 0, 5), frame(DATA, 1, 0)].concat();
    for _ in 0..times {
        read(patrol, &call).await;
        patrol.toll.called();
        patrol.toll.whole().fetch_add(u64::from(whole), Ordering::Relaxed);
        read(patrol, &frame(RST_STREAM, 0, 4)).await;
        let _ = passes(patrol).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_calls_that_came_whole_never_waits() {
    let mut patrol = after(&[]).await;
    give_up(&mut patrol, true, 100_000).await;
    assert_eq!(patrol.credit, FULL);
    // As many as may be open, all at once.
    patrol.toll.whole().fetch_add(1_024, Ordering::Relaxed);
    read(&mut patrol, &frame(RST_STREAM, 0, 4).repeat(1_024)).await;
    assert!(passes(&mut patrol).await, "{patrol:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_came_whole_pay_for_few_of_those_that_do_not() {
    let mut patrol = after(&[]).await;
    patrol.toll.whole().fetch_add(1 << 40, Ordering::Relaxed);
    give_up(&mut patrol, false, FULL).await;
    assert!(patrol.credit > 0 && patrol.may_reset == 0, "{patrol:?}");
    give_up(&mut patrol, false, FULL).await;
    assert!(!passes(&mut patrol).await, "{patrol:?}");
}

#[tokio::test(start_paused = true)]
async fn refused_calls_do_not_stop_the_good_ones_on_their_connection() {
    let one = [frame(HEADERS, 4, 30), frame(DATA, 1, 5)].concat();
    let (mut patrol, mut waits) = (after(&[]).await, 0);
    for turn in 0..5_050 {
        read(&mut patrol, &one).await;
        patrol.toll.called();
        if turn % 101 == 0 {
            patrol.toll.good()
        } else {
            patrol.toll.refused()
        }
        waits += usize::from(!passes(&mut patrol).await);
    }
    assert_eq!(waits, 0, "{patrol:?}");
    // As many at once as a connection allows.
    (0..1_024).for_each(|_| patrol.toll.refused());
    assert!(passes(&mut patrol).await, "{patrol:?}");
    // Frames that carry too little cost as before.
    read(&mut patrol, &frame(DATA, 0, 1).repeat(usize::try_from(FULL).unwrap())).await;
    patrol.since = Instant::now();
    assert!(!passes(&mut patrol).await, "{patrol:?}");
}

#[tokio::test(start_paused = true)]
async fn as_many_refused_calls_as_come_at_once_stop_a_connection_for_a_second_at_most() {
    let mut patrol = after(&[]).await;
    (0..1_024).for_each(|_| patrol.toll.refused());
    assert!(!passes(&mut patrol).await);
    advance(Duration::from_millis(1_010)).await;
    assert!(passes(&mut patrol).await, "{patrol:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_to_pings_bring_less_than_the_pings_cost() {
    let mut patrol = after(&[]).await;
    for _ in 0..3 * FULL {
        patrol.wrote(17);
        read(&mut patrol, &frame(PING, 0, 8)).await;
    }
    assert!(!passes(&mut patrol).await, "{patrol:?}");
}

#[tokio::test]
async fn who_sends_much_gives_way_before_its_window_is_full() {
    let mut data = frame(DATA, 0, 0);
    data[1] = 64;
    data.resize(HEAD + (64 << 8), 9);
    let mut patrol = after(&[]).await;
    tokio::task::yield_now().await;
    let reads = poll_fn(|context| {
        let more = |_: &usize| {
            patrol.read(&data, context);
            coop::has_budget_remaining()
        };
        Poll::Ready((0..64).take_while(more).count())
    });
    let bytes = reads.await * data.len();
    assert!((32 << 10..=64 << 10).contains(&bytes), "{bytes} of a window of 1 MiB");
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_read_for_nothing_cost_by_their_bytes_also_beside_good_ones() {
    let mut patrol = after(&[]).await;
    patrol.toll.good();
    let waste =
        |toll: &CallCredit, bytes| toll.wasted().fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
    // Small requests that are shed in a moment of overload.
    for _ in 0..1_000 {
        waste(&patrol.toll, 300);
    }
    assert!(passes(&mut patrol).await, "{patrol:?}");
    waste(&patrol.toll, 1 << 30);
    assert!(!passes(&mut patrol).await, "{patrol:?}");
    advance(Duration::from_millis(990)).await;
    assert!(!passes(&mut patrol).await, "{patrol:?}");
    advance(Duration::from_millis(20)).await;
    assert!(passes(&mut patrol).await, "{patrol:?}");
}
