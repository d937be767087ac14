//! HTTP/2 by hand: frames as bytes, and a connection that counts what it receives. For frames that no library would
//! send. Must not depend on why they are sent.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// Flag of SETTINGS and PING.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
/// Identifiers of settings.
pub(crate) const INITIAL_WINDOW: u16 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// Initial flow-control window of connections and streams.
const WINDOW: i64 = 65_535;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
const READ: usize = 64 << 10;
const CONNECT: Duration = Duration::from_secs(5);

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// One setting.
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// The header block of a call, without indexing and compression.
pub(crate) fn head(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    // :method POST and :scheme http.
    let mut block = vec![0x83, 0x86];
    let text = |block: &mut Vec<u8>, text: &str| {
        block.push(u8::try_from(text.len()).unwrap_or(126).min(126));
        block.extend(text.as_bytes().iter().take(126));
    };
    block.push(0x04);
    text(&mut block, path);
    block.push(0x01);
    text(&mut block, "localhost");
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(more) {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A message in gRPC's framing.
pub(crate) fn message(compressed: bool, length: usize, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [&[u8::from(compressed)], &length[..], bytes].concat()
}

/// The peer's flow control: its windows, the streams that it has not ended, and its limit on them.
#[derive(Debug)]
pub(crate) struct Room {
    connection: i64,
    initial: i64,
    streams: BTreeMap<u32, i64>,
    /// Limit on concurrent streams.
    pub(crate) most: usize,
}

impl Default for Room {
    fn default() -> Room {
        Room { connection: WINDOW, initial: WINDOW, streams: BTreeMap::new(), most: usize::MAX }
    }
}

impl Room {
    /// Opens a stream.
    pub(crate) fn open(&mut self, stream: u32) {
        self.streams.insert(stream, self.initial);
    }

    /// Forgets a stream.
    pub(crate) fn close(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// Whether the stream is open: the peer has not ended it.
    pub(crate) fn has(&self, stream: u32) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Bytes that may be sent on a stream now.
    pub(crate) fn of(&self, stream: u32) -> usize {
        let room = self.streams.get(&stream).map_or(0, |room| self.connection.min(*room));
        usize::try_from(room).unwrap_or(0)
    }

    /// Accounts for bytes that were sent.
    pub(crate) fn spend(&mut self, stream: u32, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.connection -= bytes;
        if let Some(room) = self.streams.get_mut(&stream) {
            *room -= bytes;
        }
    }

    fn heard(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        match kind {
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    let value = number(&setting[2..]);
                    match u16::from_be_bytes([setting[0], setting[1]]) {
                        INITIAL_WINDOW => {
                            let more = i64::from(value) - self.initial;
                            self.initial += more;
                            self.streams.values_mut().for_each(|room| *room += more);
                        }
                        MAX_CONCURRENT_STREAMS => self.most = usize::try_from(value).unwrap_or(usize::MAX),
                        _ => {}
                    }
                }
            }
            WINDOW_UPDATE if stream == 0 => self.connection += i64::from(number(payload)),
            WINDOW_UPDATE => {
                self.streams.entry(stream).and_modify(|room| *room += i64::from(number(payload)));
            }
            RST_STREAM => self.close(stream),
            HEADERS | DATA if flags & END_STREAM != 0 => self.close(stream),
            _ => {}
        }
    }
}

/// How connections ended, and what was sent and received.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Connections that were opened.
    pub(crate) made: u64,
    /// Connections that ended with GOAWAY, by code.
    pub(crate) goodbyes: BTreeMap<u32, u64>,
    /// Connections that were closed without GOAWAY.
    pub(crate) cut: u64,
    /// Connections that stayed open until the attacker closed them.
    pub(crate) lasted: u64,
    /// What was sent, in the attack's unit.
    pub(crate) sent: u64,
    /// The same in bytes; most of them may still be in socket buffers.
    pub(crate) bytes: u64,
    /// Frames received, except GOAWAY.
    pub(crate) answered: u64,
}

impl Told {
    pub(crate) fn add(&mut self, other: Told) {
        self.made += other.made;
        self.cut += other.cut;
        self.lasted += other.lasted;
        self.sent += other.sent;
        self.bytes += other.bytes;
        self.answered += other.answered;
        for (code, count) in other.goodbyes {
            *self.goodbyes.entry(code).or_default() += count;
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With GOAWAY and this code.
    Goodbye(u32),
    /// Closed without GOAWAY.
    Cut,
}

/// A connection.
pub(crate) struct Line {
    stream: TcpStream,
    unread: Vec<u8>,
    /// Frames received, by type.
    pub(crate) seen: [u64; 10],
    /// Bytes sent.
    pub(crate) wrote: u64,
    pub(crate) room: Room,
    /// Acknowledgements that the protocol requires of a client.
    owed: Vec<u8>,
    goodbye: Option<u32>,
}

impl Line {
    /// Connects, and sends the preface and these settings.
    pub(crate) async fn open(address: SocketAddr, settings: &[u8]) -> Result<Line> {
        let limit = Instant::now() + CONNECT;
        let stream = timeout_at(limit, TcpStream::connect(address)).await.map_err(Error::from)??;
        stream.set_nodelay(true)?;
        let (unread, owed) = (Vec::new(), Vec::new());
        let room = Room::default();
        let mut line = Line { stream, unread, seen: [0; 10], wrote: 0, room, owed, goodbye: None };
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat();
        line.send(&hello, limit, false).await.map_err(|_| Error::from(ErrorKind::ConnectionReset))?;
        Ok(line)
    }

    /// Sends all of it, or as much as is accepted in time; true if that was all. Frames that arrive meanwhile are read
    /// if `read` is set.
    pub(crate) async fn send(
        &mut self,
        mut bytes: &[u8],
        limit: Instant,
        read: bool,
    ) -> std::result::Result<bool, End> {
        while !bytes.is_empty() {
            let interest = if read { Interest::READABLE | Interest::WRITABLE } else { Interest::WRITABLE };
            let Ok(ready) = timeout_at(limit, self.stream.ready(interest)).await else { return Ok(false) };
            let ready = ready.map_err(|_| self.end())?;
            if read && ready.is_readable() {
                self.take()?;
            }
            if ready.is_writable() {
                match self.stream.try_write(bytes) {
                    Ok(written) => {
                        bytes = &bytes[written..];
                        self.wrote += written as u64;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return Err(self.last_words()),
                }
            }
        }
        Ok(true)
    }

    /// Reads until a condition on the frames received holds; true if it did in time.
    pub(crate) async fn until(
        &mut self,
        limit: Instant,
        holds: impl Fn(&[u64; 10]) -> bool,
    ) -> std::result::Result<bool, End> {
        while !holds(&self.seen) {
            if timeout_at(limit, self.stream.readable()).await.is_err() {
                return Ok(false);
            }
            self.take()?;
        }
        Ok(true)
    }

    /// Acknowledges the SETTINGS and PINGs received, as a client has to.
    pub(crate) async fn settle(&mut self, limit: Instant) -> std::result::Result<(), End> {
        let owed = std::mem::take(&mut self.owed);
        self.send(&owed, limit, true).await.map(drop)
    }

    /// Waits for data and reads it; true if it came in time.
    pub(crate) async fn hear(&mut self, limit: Instant) -> std::result::Result<bool, End> {
        match timeout_at(limit, self.stream.readable()).await {
            Ok(_) => self.take().map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Reads until the connection ends; `None` if it does not in time.
    pub(crate) async fn ended(&mut self, limit: Instant) -> Option<End> {
        self.until(limit, |_| false).await.err()
    }

    /// Reads what has arrived.
    fn take(&mut self) -> std::result::Result<(), End> {
        let mut buffer = [0; READ];
        match self.stream.try_read(&mut buffer) {
            Ok(0) => Err(self.end()),
            Ok(read) => {
                self.unread.extend(&buffer[..read]);
                self.count();
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(self.end()),
        }
    }

    fn count(&mut self) {
        let mut rest = &self.unread[..];
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD>() {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some(payload) = behind.get(..length) else { break };
            if let Some(count) = self.seen.get_mut(usize::from(head[3])) {
                *count += 1;
            }
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            self.room.heard(head[3], head[4], stream, payload);
            // Bounded for callers that never acknowledge.
            if matches!(head[3], SETTINGS | PING) && head[4] & ACK == 0 && self.owed.len() < READ {
                let echoed = if head[3] == PING { payload } else { &[] };
                self.owed.extend(frame(head[3], ACK, 0, echoed));
            }
            if let (GOAWAY, Some(code)) = (head[3], payload.get(4..).and_then(|code| code.first_chunk())) {
                self.goodbye = Some(u32::from_be_bytes(*code));
            }
            rest = &behind[length..];
        }
        self.unread = rest.to_vec();
    }

    /// Reads the rest after a failed write: a GOAWAY in it says why.
    fn last_words(&mut self) -> End {
        loop {
            let before = self.unread.len() as u64 + self.seen.iter().sum::<u64>();
            if let Err(end) = self.take() {
                return end;
            }
            if before == self.unread.len() as u64 + self.seen.iter().sum::<u64>() {
                return self.end();
            }
        }
    }

    fn end(&self) -> End {
        self.goodbye.map_or(End::Cut, End::Goodbye)
    }

    /// The code of the GOAWAY received, if any.
    pub(crate) fn told(&self) -> Option<u32> {
        self.goodbye
    }

    /// Frames received, except GOAWAY.
    pub(crate) fn answers(&self) -> u64 {
        self.seen.iter().sum::<u64>() - self.seen[usize::from(GOAWAY)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_its_head_and_its_payload() {
        assert_eq!(frame(PING, ACK, 0, &[7; 8]), [&[0, 0, 8, 6, 1, 0, 0, 0, 0][..], &[7; 8]].concat());
        assert_eq!(frame(DATA, END_STREAM, 3, b"x"), [0, 0, 1, 0, 1, 0, 0, 0, 3, b'x']);
    }

    #[test]
    fn room_follows_what_the_other_side_says() {
        let mut room = Room::default();
        room.open(1);
        room.spend(1, 65_000);
        room.heard(SETTINGS, 0, 0, &[setting(INITIAL_WINDOW, 70_000), setting(3, 7)].concat());
        assert_eq!((room.of(1), room.most), (535, 7));
        room.heard(WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]);
        assert_eq!(room.of(1), 5_000);
        room.heard(HEADERS, END_STREAM | END_HEADERS, 1, &[]);
        assert_eq!((room.has(1), room.of(1)), (false, 0));
    }

    #[test]
    fn a_message_says_its_length() {
        assert_eq!(message(true, 258, b"ab"), [1, 0, 0, 1, 2, b'a', b'b']);
    }
}
