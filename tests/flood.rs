//! What no client library sends: floods of frames, endless or compressed headers, messages at a limit and above it.
//! `loadtest flood` measures the effect on others; these tests check what happens to the sender.

use std::time::Duration;

use bytes::Bytes;
use prost_reflect::prost::Message as _;
use tokio::time::Instant;
use tonic::Code;

use crate::harness::codec::ask;
use crate::harness::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, End, HEADERS, Line, PING, RST_STREAM, SETTINGS,
};
use crate::harness::system::{PATIENCE, System, new_order, until};

const CHECK: &str = "/orders.v1.OrderService/CheckInventory";
/// ENHANCE_YOUR_CALM.
const CALM: End = End::Goodbye(11);

async fn line(system: &System) -> Line {
    Line::open(system.gateways[0].grpc_addr(), &[]).await.unwrap()
}

/// A system whose gateway has a small limit on messages. Returns the limit in bytes.
async fn small() -> (System, usize) {
    let most = 100_000;
    let system =
        System::builder().stock("lamp", 9).each_gateway(|config| config.limits.max_request_bytes = most);
    (system.start().await, most)
}

fn limit() -> Instant {
    Instant::now() + PATIENCE
}

/// A request of this many bytes, padded with an unknown field.
fn padded(size: usize) -> Bytes {
    let mut message =
        contract::orders::v1::CheckInventoryRequest { items: new_order("lamp", 1).request.items }
            .encode_to_vec();
    // Field 1000, of type bytes, with a length of three bytes.
    let padding = size - message.len() - 5;
    let length = [padding & 0x7f | 0x80, padding >> 7 & 0x7f | 0x80, padding >> 14]
        .map(|part| u8::try_from(part).unwrap());
    message.extend([0xc2, 0x3e].iter().chain(&length));
    message.resize(size, 0);
    message.into()
}

#[tokio::test]
async fn a_flood_of_frames_is_read_at_a_rate_and_keeps_nobody_waiting() {
    let system = System::builder().stock("lamp", 9).start().await;
    let ping = frames::frame(PING, 0, 0, b"flooding");
    let settings = frames::frame(SETTINGS, 0, 0, &frames::setting(4, 65_535));
    // SETTINGS may change the windows of all streams, so a frame costs as much as 512 PINGs; the first is free.
    for (one, kind, at_once, cost) in [(ping, PING, 2_000, 1.0), (settings, SETTINGS, 3, 512.0)] {
        let mut line = line(&system).await;
        let begun = Instant::now();
        let all = one.repeat(100_000);
        let flood = async {
            line.send(&all, begun + Duration::from_secs(2), true).await?;
            line.until(begun + Duration::from_secs(2), |_| false).await
        };
        let (flood, checked) = tokio::join!(flood, system.check("lamp"));
        assert_eq!((flood, checked.unwrap()), (Ok(false), true), "{kind}");
        let (answered, time) = (line.seen[usize::from(kind)], begun.elapsed().as_secs_f64());
        // The acknowledgement refunds half of a frame's cost; and frames that were read at once are acknowledged.
        let most = 2.2 * (2_048.0 + 1_024.0 * time) / cost + 4_096.0;
        assert!(answered > at_once && answered as f64 <= most, "{kind}: {answered}");
    }
}

#[tokio::test]
async fn messages_by_the_byte_are_read_at_a_rate_and_answered_in_the_end() {
    let system = System::builder().stock("lamp", 9).start().await;
    let message = padded(6_000);
    let message = [&[0, 0, 0, 0x17, 0x70][..], &message].concat();
    let frames: Vec<u8> = message.iter().flat_map(|byte| frames::frame(DATA, 0, 1, &[*byte])).collect();
    let mut line = line(&system).await;
    let begun = Instant::now();
    let head = frames::frame(HEADERS, END_HEADERS, 1, &frames::head(CHECK, &[]));
    let all = [head, frames, frames::frame(DATA, END_STREAM, 1, &[])].concat();
    assert_eq!(line.send(&all, limit(), true).await, Ok(true));
    assert_eq!(line.until(limit(), |seen| seen[usize::from(HEADERS)] >= 1).await, Ok(true));
    // 2,048 frames at once and 1,024 per second; WINDOW_UPDATEs of the gateway refund a little.
    assert!(begun.elapsed() > Duration::from_millis(2_500), "{:?}", begun.elapsed());
    assert!(system.check("lamp").await.unwrap());
}

#[tokio::test]
async fn who_sent_too_much_is_answered_in_the_end() {
    let system = System::builder().start().await;
    let mut line = line(&system).await;
    let pings = frames::frame(PING, 0, 0, b"flooding").repeat(12_000);
    assert_eq!(line.send(&pings, limit(), true).await, Ok(true));
    assert_eq!(line.until(limit(), |seen| seen[usize::from(PING)] >= 12_000).await, Ok(true));
}

#[tokio::test]
async fn calls_that_are_only_reset_are_read_at_a_rate() {
    let system = System::builder().stock("lamp", 9).start().await;
    let mut line = line(&system).await;
    let end = Instant::now() + Duration::from_secs(2);
    let pair = |stream| {
        let call = frames::frame(HEADERS, END_HEADERS, stream, &frames::head(CHECK, &[]));
        [call, frames::frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    let pairs: Vec<u8> = (0..100_000).flat_map(|number| pair(2 * number + 1)).collect();
    // By chance they are accepted before they are reset: then the connection is throttled, else closed.
    let ended = line.send(&pairs, end, true).await;
    assert!(matches!(ended, Ok(false) | Err(CALM | End::Cut)), "{ended:?}");
    assert!(system.check("lamp").await.unwrap());
}

#[tokio::test]
async fn a_client_that_floods_after_the_goaway_is_no_longer_read() {
    let system = System::builder().stock("lamp", 9).start().await;
    let mut endless = line(&system).await;
    let head = frames::frame(HEADERS, END_STREAM, 1, &frames::head(CHECK, &[]));
    let more = frames::frame(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b']);
    let sent = endless.send(&[head, more.repeat(4_000_000)].concat(), limit(), true).await;
    assert!(matches!(sent, Err(CALM | End::Cut)), "{sent:?}");
    // What fits into kernel buffers, and some more.
    assert!(endless.wrote < 16 << 20, "{}", endless.wrote);
    assert!(system.check("lamp").await.unwrap());
}

#[tokio::test]
async fn headers_that_never_end_or_unfold_end_the_connection() {
    let system = System::builder().stock("lamp", 9).start().await;
    let mut endless = line(&system).await;
    let head = frames::frame(HEADERS, END_STREAM, 1, &frames::head(CHECK, &[]));
    let more = frames::frame(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b']);
    endless.send(&[head, more.repeat(10)].concat(), limit(), true).await.unwrap();
    assert_eq!(endless.ended(limit()).await, Some(CALM));
    // A field of 2,000 bytes that is added to the HPACK table, then its index repeatedly.
    let field = [&[0x40, 1, b'x', 0x7f, 0xd1, 0x0e][..], &[b'v'; 2_000]].concat();
    let bomb = [frames::head(CHECK, &[]), field, vec![0xbe; 10_000]].concat();
    let mut short = line(&system).await;
    short.send(&frames::frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb), limit(), true).await.unwrap();
    assert_eq!(short.ended(limit()).await, Some(CALM));
    assert!(system.check("lamp").await.unwrap());
}

#[tokio::test]
async fn headers_that_do_not_come_whole_end_the_connection_in_time() {
    let system = System::builder().stock("lamp", 9).start().await;
    let block = frames::head(CHECK, &[]);
    // The last frame, or the last byte, is missing.
    let unended = frames::frame(HEADERS, 0, 1, &block);
    let mut unsent = frames::frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    unsent.pop();
    for begun in [unended, unsent] {
        let mut line = line(&system).await;
        line.send(&begun, limit(), true).await.unwrap();
        // A peer that does not acknowledge PINGs is closed after 40 s.
        let time = Instant::now();
        assert_eq!(line.ended(time + Duration::from_secs(30)).await, Some(End::Cut));
        assert!(time.elapsed() > Duration::from_secs(8), "{:?}", time.elapsed());
    }
    assert!(system.check("lamp").await.unwrap());
}

#[tokio::test]
async fn answers_to_pings_that_were_never_sent_are_hardly_read() {
    let system = System::builder().stock("lamp", 9).start().await;
    let mut line = line(&system).await;
    let pongs = frames::frame(PING, ACK, 0, b"flooding").repeat(1_000_000);
    assert_eq!(line.send(&pongs, Instant::now() + Duration::from_secs(2), true).await, Ok(false));
    assert!(system.check("lamp").await.unwrap());
}

#[tokio::test]
async fn a_message_of_the_largest_size_is_taken_and_one_byte_more_is_not() {
    let (system, most) = small().await;
    let channel = system.channel();
    for _ in 0..40 {
        let refused = ask(&channel, CHECK, padded(most + 1), &[]).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }
    // The bytes of refused messages must not count as unread, or the connection's window would be used up.
    for _ in 0..40 {
        tokio::time::timeout(PATIENCE, ask(&channel, CHECK, padded(most), &[])).await.expect("room").unwrap();
    }
}

#[tokio::test]
async fn messages_that_are_refused_are_read_at_a_rate_and_keep_nobody_else_waiting() {
    let (system, most) = small().await;
    let address = format!("http://{}", system.gateways[0].grpc_addr());
    let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    let end = Instant::now() + Duration::from_secs(3);
    let refused = async || {
        let mut count = 0;
        while Instant::now() < end {
            let refused = ask(&channel, CHECK, padded(most + 1), &[]).await.unwrap_err();
            assert_eq!(refused.code(), Code::ResourceExhausted);
            count += 1;
        }
        count
    };
    let (counts, checked) =
        tokio::join!(futures_util::future::join_all((0..8).map(|_| refused())), system.check("lamp"));
    // The 16 KiB that are read of each cost as much as 32 frames, and its response refunds a part.
    let all: u64 = counts.iter().sum();
    assert!((8..600).contains(&all) && checked.unwrap(), "{counts:?}");
}

#[tokio::test]
async fn what_says_that_it_is_compressed_is_refused_whatever_it_unfolds_to() {
    let system = System::builder().start().await;
    let channel = system.channel();
    for rule in orders::served::contract().rules() {
        for encoding in ["gzip", "deflate", "zstd"] {
            let metadata = [("grpc-encoding", encoding)];
            let refused =
                ask(&channel, &rule.path, Bytes::from(vec![0; 1_000]), &metadata).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unimplemented, "{}", rule.path);
        }
    }
    until("it serves", async || system.check("lamp").await.is_ok()).await;
}
