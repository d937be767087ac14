//! A TCP proxy in front of a server, to break the connection of one peer and leave the others alone.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A proxy to one address.
pub struct Proxy {
    addr: SocketAddr,
    open: Arc<watch::Sender<bool>>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// A proxy to a port of this machine.
    pub async fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let open = Arc::new(watch::Sender::new(true));
        let task = tokio::spawn(accept(listener, port, open.clone()));
        Proxy { addr, open, _task: AbortOnDropHandle::new(task) }
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    /// Breaks every connection, and lets no new one through.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn accept(listener: TcpListener, port: u16, open: Arc<watch::Sender<bool>>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut state = open.subscribe();
        if !*state.borrow_and_update() {
            continue;
        }
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = state.wait_for(|open| !open) => {}
            }
        });
    }
}
