//! The server at the other end of a connection, and the log lines about that connection: each names the server. Must
//! not decide anything.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use async_nats::{Event, ServerError, ServerInfo};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::permissions::PermissionViolation;

/// The client library reports that it is connected a moment before it reports the server.
const SETTLE: Duration = Duration::from_millis(20);
/// The first connection is announced before the client can be asked; on a busy machine that takes a while.
const LOOKS: u32 = 50;

/// The server that a connection is at, or was at last.
pub(crate) struct Node {
    /// The connection's name, as the server shows it.
    connection: String,
    /// The configured servers, without secrets.
    servers: String,
    info: OnceLock<Info>,
    last: Mutex<Option<Place>>,
}

/// Returns the server's own description.
type Info = Box<dyn Fn() -> Option<ServerInfo> + Send + Sync>;

/// A server's name and address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    name: String,
    address: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.address)
    }
}

impl Node {
    /// A connection whose server is not known yet.
    pub(crate) fn new(connection: &str, servers: String) -> Node {
        Node { connection: connection.to_owned(), servers, info: OnceLock::new(), last: Mutex::default() }
    }

    /// Sets the source of server information. It must not keep the connection open.
    pub(crate) fn ask(&self, info: impl Fn() -> Option<ServerInfo> + Send + Sync + 'static) {
        // The first source stays.
        let _ = self.info.set(Box::new(info));
    }

    /// Logs a connection event.
    pub(crate) async fn log(&self, event: &Event) {
        let node = match event {
            Event::Connected => self.arrive().await,
            _ => self.last.lock().clone(),
        };
        let (node, connection) = (node.map(|node| node.to_string()), self.connection.as_str());
        match event {
            Event::Connected => tracing::info!(node, connection, "connected to NATS"),
            Event::Disconnected => tracing::warn!(node, connection, "disconnected from NATS"),
            Event::SlowConsumer(id) => {
                tracing::warn!(
                    node,
                    connection,
                    subscription = id,
                    "slow consumer: messages from NATS were dropped"
                )
            }
            Event::LameDuckMode => {
                tracing::warn!(node, connection, "the NATS server is about to stop (lame duck mode)")
            }
            Event::ServerError(ServerError::Other(text)) => match PermissionViolation::read(text) {
                Some(denied) => tracing::error!(target: "permissions", node, connection, "{denied}"),
                None => tracing::warn!(node, connection, error = text, "the NATS server reported an error"),
            },
            Event::ServerError(error) => {
                tracing::warn!(node, connection, %error, "the NATS server reported an error")
            }
            Event::ClientError(error) => {
                tracing::warn!(node, connection, %error, "the NATS client reported an error")
            }
            Event::Draining | Event::Closed => tracing::debug!(%event, node, connection, "NATS"),
        }
    }

    /// The server that the connection is at from now on.
    async fn arrive(&self) -> Option<Place> {
        sleep(SETTLE).await;
        for _ in 0..LOOKS {
            if self.info.get().is_some() {
                break;
            }
            sleep(SETTLE).await;
        }
        let info = self.info.get().and_then(|info| info())?;
        let place = Place { address: address(&info, &self.servers), name: info.server_name };
        *self.last.lock() = Some(place.clone());
        Some(place)
    }
}

/// The server's address. A server that listens on all addresses does not report one; then it is the configured or known
/// server with the same port.
fn address(info: &ServerInfo, servers: &str) -> String {
    let host = info.host.trim_matches(['[', ']']);
    if !["", "0.0.0.0", "::"].contains(&host) {
        return if host.contains(':') {
            format!("[{host}]:{}", info.port)
        } else {
            format!("{host}:{}", info.port)
        };
    }
    let bare = |url: &str| url.split_once("://").map_or(url, |(_, rest)| rest).to_owned();
    let port = format!(":{}", info.port);
    let known = |urls: Vec<String>| {
        let mut found = urls.into_iter().filter(|url| url.ends_with(&port));
        found.next().filter(|_| found.next().is_none())
    };
    let configured: Vec<String> = servers.split(',').map(bare).collect();
    match &configured[..] {
        [only] => only.clone(),
        _ => known(configured).or_else(|| known(info.connect_urls.clone())).unwrap_or(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(host: &str, port: u16, urls: &[&str]) -> ServerInfo {
        let connect_urls = urls.iter().map(|url| (*url).to_owned()).collect();
        ServerInfo { host: host.to_owned(), port, connect_urls, ..ServerInfo::default() }
    }

    #[test]
    fn a_node_is_where_it_says_or_where_its_port_is_known() {
        assert_eq!(address(&info("10.0.0.7", 4222, &[]), "nats://a:1,nats://b:2"), "10.0.0.7:4222");
        assert_eq!(address(&info("::1", 4222, &[]), "nats://a:1"), "[::1]:4222");
        assert_eq!(address(&info("0.0.0.0", 4222, &[]), "nats://lb.example:4000"), "lb.example:4000");
        assert_eq!(address(&info("0.0.0.0", 2, &[]), "nats://a:1,tls://b:2"), "b:2");
        let known = ["10.0.0.1:9", "10.0.0.2:4222"];
        assert_eq!(address(&info("0.0.0.0", 9, &known), "nats://a:4222,nats://b:4222"), "10.0.0.1:9");
        assert_eq!(address(&info("0.0.0.0", 4222, &[]), "nats://a:4222,nats://b:4222"), ":4222");
    }
}
