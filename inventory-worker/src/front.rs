//! The front: a connection that requests come in over, and the thread that they are worked on, so that a request that
//! changes nothing costs no change of threads. The connection can be left without losing a request. The client library
//! forgets a subscription that drains as soon as it is polled again, whether the server has heard of it or not, and
//! drops what was on its way. So between the two its thread stands still, until the server has answered: then
//! everything that was sent is read at once. Must never know what the requests are.

use std::time::Duration;

use async_nats::Client;
use link::options::ConnectError;
use link::{Link, Options};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Longer than a round trip to the server. Requests that come in meanwhile wait so long.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// How long the library may take to read what has come in, and to close.
const CLOSE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(2);

/// A connection for requests, and its thread. Dropped, both end where they stand.
pub struct Front {
    link: Link,
    thread: Handle,
    leave: oneshot::Sender<()>,
    left: oneshot::Receiver<Left>,
}

/// The thread without the connection. It goes on with what was spawned there until this is dropped.
pub struct Left {
    /// Whether the subscriptions end after what was sent. Without an answer of the server they never do, and nothing
    /// comes either.
    pub drained: bool,
    _end: oneshot::Sender<()>,
}

impl Front {
    /// Connects; `name` is what the server shows for the connection.
    pub async fn connect(options: &Options, name: &'static str) -> anyhow::Result<Front> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = runtime.handle().clone();
        let (leave, asked) = oneshot::channel();
        let (gone, left) = oneshot::channel();
        let (up, connected) = oneshot::channel();
        let options = options.clone();
        std::thread::Builder::new().name("requests".to_owned()).spawn(move || {
            if let Some(drained) = run(&runtime, &options, name, up, asked) {
                let (end, ended) = oneshot::channel();
                // An error says that nobody waits for it; either way this ends with the other side.
                let _ = gone.send(Left { drained, _end: end });
                let _ = runtime.block_on(ended);
            }
            // A look-up of a name that hangs must not hold the end up.
            runtime.shutdown_background();
        })?;
        Ok(Front { link: connected.await??, thread, leave, left })
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Where requests are worked on.
    pub fn thread(&self) -> &Handle {
        &self.thread
    }

    /// Leaves the queue groups. When this returns, every request that the server sent is in its subscription. `None` if
    /// the thread has ended.
    pub async fn leave(self) -> Option<Left> {
        let _ = self.leave.send(());
        self.left.await.ok()
    }
}

/// Connects, stays, and leaves when asked to: then whether the subscriptions end.
fn run(
    runtime: &Runtime,
    options: &Options,
    name: &str,
    up: oneshot::Sender<Result<Link, ConnectError>>,
    asked: oneshot::Receiver<()>,
) -> Option<bool> {
    let connected = runtime.block_on(Link::connect(options, name));
    let Ok(link) = connected else {
        let _ = up.send(connected);
        return None;
    };
    let client = link.client().clone();
    if up.send(Ok(link)).is_err() || runtime.block_on(asked).is_err() {
        return None;
    }
    // Without a connection there is nothing to leave, and nothing comes.
    if let Ok(Ok(())) = runtime.block_on(async { timeout(CLOSE, tell(&client)).await }) {
        std::thread::sleep(ROUND_TRIP);
    }
    let drained = runtime.block_on(async { timeout(CLOSE, closed(&client)).await }).is_ok();
    if !drained {
        tracing::debug!("the connection for requests was left without an answer of the server");
    }
    Some(drained)
}

/// Tells the server. The two commands are taken up together: when this returns, both are on their way.
async fn tell(client: &Client) -> Result<(), async_nats::Error> {
    client.drain().await?;
    client.flush().await?;
    Ok(())
}

/// Waits until all is read: then the library closes, and its commands fail. It has to be woken first by what has come
/// in: a command would wake it before the runtime knows that there is anything to read.
async fn closed(client: &Client) {
    sleep(LOOK).await;
    while client.flush().await.is_ok() {
        sleep(LOOK).await;
    }
}
