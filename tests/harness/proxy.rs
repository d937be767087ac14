//! A TCP proxy in front of a server, to disturb the connection of one peer and leave the others alone: cut it, hold its
//! data, or drop replies after a certain message.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What the proxy does with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Passes it.
    Open,
    /// Holds it, in both directions.
    Held,
    /// Holds that of one connection, by its number.
    OneHeld(usize),
    /// Passes data to the server, and drops data from it.
    Mute,
    /// Closes connections, and refuses new ones.
    Cut,
}

/// A proxy to one address.
pub struct Proxy {
    addr: SocketAddr,
    state: Arc<State>,
    _task: AbortOnDropHandle<()>,
}

/// The bytes that it waits for, and the mode that a connection with them gets, by its number.
type Trigger = (Vec<u8>, fn(usize) -> Mode);

struct State {
    mode: watch::Sender<Mode>,
    /// How often the connections were closed by `reset`.
    resets: watch::Sender<u32>,
    /// Bytes after which the mode changes. The new one may depend on the connection that sent them.
    trigger: Mutex<Option<Trigger>>,
}

impl Proxy {
    /// A proxy to a local port.
    pub async fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Open),
            resets: watch::Sender::new(0),
            trigger: Mutex::new(None),
        });
        let task = tokio::spawn(accept(listener, port, state.clone()));
        Proxy { addr, state, _task: AbortOnDropHandle::new(task) }
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    /// Closes every connection, and refuses new ones.
    pub fn cut(&self) {
        self.state.mode.send_replace(Mode::Cut);
    }

    /// Closes every connection, and passes new ones.
    pub fn reset(&self) {
        self.restore();
        self.state.resets.send_modify(|resets| *resets += 1);
    }

    /// Passes connections and data again.
    pub fn restore(&self) {
        *self.state.trigger.lock().unwrap() = None;
        self.state.mode.send_replace(Mode::Open);
    }

    /// Holds data in both directions until `restore`.
    pub fn hold(&self) {
        self.state.mode.send_replace(Mode::Held);
    }

    /// Drops everything from the server once these bytes were sent to it.
    pub fn mute_after(&self, bytes: &str) {
        self.after(bytes, |_| Mode::Mute);
    }

    /// Holds the data of the connection on which these bytes are sent, from then on until `restore`. The server gets
    /// them; its reply is held.
    pub fn hold_after(&self, bytes: &str) {
        self.after(bytes, Mode::OneHeld);
    }

    fn after(&self, bytes: &str, mode: fn(usize) -> Mode) {
        *self.state.trigger.lock().unwrap() = Some((bytes.as_bytes().to_vec(), mode));
    }

    /// Waits until these bytes were sent.
    pub async fn muted(&self) {
        let mut mode = self.state.mode.subscribe();
        mode.wait_for(|mode| *mode == Mode::Mute).await.unwrap();
    }
}

async fn accept(listener: TcpListener, port: u16, state: Arc<State>) {
    for number in 0.. {
        let Ok((near, _)) = listener.accept().await else { return };
        let state = state.clone();
        if *state.mode.borrow() == Mode::Cut {
            continue;
        }
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            let (mut mode, mut resets) = (state.mode.subscribe(), state.resets.subscribe());
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::select! {
                _ = up(near_in, far_out, &state, number) => {}
                _ = down(far_in, near_out, &state, number) => {}
                _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
                _ = resets.changed() => {}
            }
        });
    }
}

async fn up(mut near: OwnedReadHalf, mut far: OwnedWriteHalf, state: &State, number: usize) -> Option<()> {
    let (mut chunk, mut seen) = (vec![0; 1 << 16], Vec::new());
    loop {
        let count = near.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        passes(state, number).await;
        seen.extend_from_slice(&chunk[..count]);
        state.look(&seen, number);
        seen.drain(..seen.len().saturating_sub(256));
        far.write_all(&chunk[..count]).await.ok()?;
    }
}

async fn down(mut far: OwnedReadHalf, mut near: OwnedWriteHalf, state: &State, number: usize) -> Option<()> {
    let mut chunk = vec![0; 1 << 16];
    loop {
        let count = far.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        passes(state, number).await;
        if *state.mode.borrow() != Mode::Mute {
            near.write_all(&chunk[..count]).await.ok()?;
        }
    }
}

/// Waits as long as this connection's data is held.
async fn passes(state: &State, number: usize) {
    let held = |mode: &Mode| [Mode::Held, Mode::OneHeld(number)].contains(mode);
    let _ = state.mode.subscribe().wait_for(|mode| !held(mode)).await;
}

impl State {
    fn look(&self, sent: &[u8], number: usize) {
        let mut trigger = self.trigger.lock().unwrap();
        let found = |bytes: &[u8]| sent.windows(bytes.len()).any(|window| window == bytes);
        if let Some((_, mode)) = trigger.take_if(|(bytes, _)| found(bytes)) {
            self.mode.send_replace(mode(number));
        }
    }
}
