//! Intake: the connection for requests, and the thread that handles them, so that a read-only request needs no switch
//! of threads. The connection can be drained without losing a request. The client library forgets a draining
//! subscription as soon as it is polled again, even if the server has not processed the drain, and drops messages in
//! flight (<https://github.com/nats-io/nats.rs/issues/1325>). So the thread sleeps between the two until the server has
//! answered: then everything that was sent is read at once. Must not depend on the content of requests.

use std::time::Duration;

use async_nats::Client;
use nats::options::ConnectError;
use nats::{Connection, Options};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Longer than a round trip to the server. Requests that arrive meanwhile wait so long.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// How long the library may take to read what has arrived, and to close.
const CLOSE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(2);

/// A connection for requests, and its thread. Both end when this is dropped.
pub struct Intake {
    link: Connection,
    thread: Handle,
    leave: oneshot::Sender<()>,
    left: oneshot::Receiver<Left>,
}

/// The thread without the connection. It runs the spawned tasks until this is dropped.
pub struct Left {
    /// Whether the subscriptions end after the last message sent. Without an answer of the server they never end, and
    /// nothing arrives either.
    pub drained: bool,
    _end: oneshot::Sender<()>,
}

impl Intake {
    /// Connects; `name` is the connection's name at the server.
    pub async fn connect(options: &Options, name: &'static str) -> anyhow::Result<Intake> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = runtime.handle().clone();
        let (leave, asked) = oneshot::channel();
        let (gone, left) = oneshot::channel();
        let (up, connected) = oneshot::channel();
        let options = options.clone();
        std::thread::Builder::new().name("requests".to_owned()).spawn(move || {
            if let Some(drained) = run(&runtime, &options, name, up, asked) {
                let (end, ended) = oneshot::channel();
                // An error means that nobody waits for it; either way this ends with the other side.
                let _ = gone.send(Left { drained, _end: end });
                let _ = runtime.block_on(ended);
            }
            // A DNS lookup that hangs must not delay the shutdown.
            runtime.shutdown_background();
        })?;
        Ok(Intake { link: connected.await??, thread, leave, left })
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.link
    }

    /// The runtime that handles requests.
    pub fn thread(&self) -> &Handle {
        &self.thread
    }

    /// Drains the subscriptions. When this returns, every request that the server sent is in its subscription. `None`
    /// if the thread has ended.
    pub async fn leave(self) -> Option<Left> {
        let _ = self.leave.send(());
        self.left.await.ok()
    }
}

/// Connects, waits until asked to drain, and drains: then whether the subscriptions end.
fn run(
    runtime: &Runtime,
    options: &Options,
    name: &str,
    up: oneshot::Sender<Result<Connection, ConnectError>>,
    asked: oneshot::Receiver<()>,
) -> Option<bool> {
    let connected = runtime.block_on(Connection::connect(options, name));
    let Ok(link) = connected else {
        let _ = up.send(connected);
        return None;
    };
    let client = link.client().clone();
    if up.send(Ok(link)).is_err() || runtime.block_on(asked).is_err() {
        return None;
    }
    // Without a connection there is nothing to drain, and nothing arrives.
    if let Ok(Ok(())) = runtime.block_on(async { timeout(CLOSE, tell(&client)).await }) {
        std::thread::sleep(ROUND_TRIP);
    }
    let drained = runtime.block_on(async { timeout(CLOSE, closed(&client)).await }).is_ok();
    if !drained {
        tracing::debug!("the connection for requests was drained without an answer of the server");
    }
    Some(drained)
}

/// Tells the server. The library handles the two commands together: when this returns, both are sent.
async fn tell(client: &Client) -> Result<(), async_nats::Error> {
    client.drain().await?;
    client.flush().await?;
    Ok(())
}

/// Waits until everything is read: then the library closes, and its commands fail. The data that arrived has to wake it
/// first: a command would wake it before the runtime knows that there is anything to read.
async fn closed(client: &Client) {
    sleep(LOOK).await;
    while client.flush().await.is_ok() {
        sleep(LOOK).await;
    }
}
