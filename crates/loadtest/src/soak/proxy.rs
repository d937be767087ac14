//! TCP proxies on the connections of a system: each passes, delays or drops data. Must not depend on the data.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// Buffer of a proxy, for each direction of a connection.
const CHUNK: usize = 64 << 10;

/// What a proxy does with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes it.
    Pass,
    /// Closes connections, and refuses new ones.
    Cut,
    /// Keeps connections open and accepts new ones, but passes nothing.
    Swallow,
    /// Passes it after a delay.
    Delay(Duration),
}

/// A proxy to a local port.
pub(crate) struct Proxy {
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Listens on a free port.
    pub(crate) async fn to(port: u16) -> std::io::Result<Proxy> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let own = listener.local_addr()?.port();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let task = tokio::spawn(accept(listener, port, mode.clone()));
        Ok(Proxy { port: own, mode, _task: AbortOnDropHandle::new(task) })
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Changes the mode of all connections.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, port: u16, mode: Arc<watch::Sender<Mode>>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let mode = mode.subscribe();
        if *mode.borrow() != Mode::Cut {
            tokio::spawn(connection(near, port, mode));
        }
    }
}

async fn connection(near: TcpStream, port: u16, mode: watch::Receiver<Mode>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    // Send small writes at once, as the peers do.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let mut broken = mode.clone();
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        _ = pump(near_in, far_out, mode.clone()) => {}
        _ = pump(far_in, near_out, mode) => {}
        _ = broken.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mode: watch::Receiver<Mode>,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let now = *mode.borrow();
        match now {
            Mode::Pass => {}
            Mode::Delay(time) => sleep(time).await,
            Mode::Swallow | Mode::Cut => continue,
        }
        to.write_all(&chunk[..count]).await?;
    }
}
