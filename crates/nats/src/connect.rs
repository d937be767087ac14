//! Connects to NATS as the options say. Must not depend on what the connection is for.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ReconnectToServer};

use crate::backoff::jitter;
use crate::certificates;
use crate::credentials::{Credentials, warn_if_exposed};
use crate::node::Node;
use crate::options::{ConnectError, Options};
use crate::pending::Pending;
use crate::pool::Pool;
use crate::servers::Servers;

/// The ping interval. A connection that receives nothing for three of these is dropped: its server is frozen, or it is
/// half open. A server answers pings without waiting for its disk.
const PING: Duration = Duration::from_millis(500);
/// The TLS library's texts for an untrusted certificate.
const UNTRUSTED: [&str; 2] = ["UnknownIssuer", "not valid for name"];

impl Options {
    /// All faults that prevent a connection attempt: invalid options and unreadable files.
    pub fn faults(&self) -> Vec<ConnectError> {
        let login = Servers::of(&self.url).and_then(|servers| Credentials::of(self, servers.login));
        let given = login.and_then(|login| login.give(self));
        let certificates = certificates::faults(self);
        [self.check_prefix().err(), given.err()].into_iter().flatten().chain(certificates).collect()
    }

    fn check_prefix(&self) -> Result<(), ConnectError> {
        let prefix = &self.inbox_prefix;
        if is_prefix(prefix) { Ok(()) } else { Err(ConnectError::Prefix(prefix.clone())) }
    }

    /// Connects. The server shows `name` for the connection; `node` logs its events, and `waiting` receives them.
    pub(crate) async fn connect(
        &self,
        name: &str,
        node: Arc<Node>,
        waiting: Arc<Pending>,
    ) -> Result<Client, ConnectError> {
        self.check_prefix()?;
        certificates::check(self)?;
        let (pool, hears) = (Pool::default(), waiting.clone());
        let Servers { urls, login } = Servers::of(&self.url)?;
        let mut options = Credentials::of(self, login)?
            .give(self)?
            .name(name)
            .custom_inbox_prefix(&self.inbox_prefix)
            .connection_timeout(self.nats_connect_timeout)
            .ping_interval(PING)
            .subscription_capacity(1 << 16)
            .reconnect_delay_callback(reconnect_delay)
            .reconnect_to_server_callback(move |servers, _| {
                hears.refused(&servers);
                let next = pool.next(&servers);
                std::future::ready(next.map(|addr| ReconnectToServer { addr, delay: None }))
            })
            .event_callback(move |event| {
                waiting.hear(&event);
                let node = node.clone();
                async move { node.log(&event).await }
            });
        if let Some(path) = &self.ca {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            warn_if_exposed(key);
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        options.connect(urls).await.map_err(|source| match source.kind() {
            ConnectErrorKind::AuthorizationViolation => ConnectError::Refused { url: self.shown() },
            _ if causes(&source).any(|cause| UNTRUSTED.iter().any(|word| cause.contains(word))) => {
                ConnectError::Untrusted { url: self.shown(), source }
            }
            _ => ConnectError::Unreachable { url: self.shown(), source },
        })
    }
}

/// The texts of an error and of its sources.
fn causes(error: &dyn std::error::Error) -> impl Iterator<Item = String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string)
}

/// Whether a text consists of tokens of harmless characters, separated by dots.
fn is_prefix(text: &str) -> bool {
    let harmless = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.len() <= 64 && text.split('.').all(|token| !token.is_empty() && token.chars().all(harmless))
}

/// 50 ms, doubling to 2 s, with full jitter, so that not all clients reconnect to a restarted server at once.
fn reconnect_delay(attempts: usize) -> Duration {
    let ceiling = 50_u64.saturating_mul(1 << attempts.min(6)).min(2_000);
    Duration::from_millis(jitter(ceiling))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inboxes_begin_with_a_subject_without_wildcards() {
        assert!(["_INBOX", "_INBOX_gateway", "books.in-box"].iter().all(|text| is_prefix(text)));
        let wrong = ["", "_INBOX.", ".a", "a..b", "_INBOX.*", ">", "a b", "a\r\nPUB", "é"];
        assert!(wrong.iter().all(|text| !is_prefix(text)));
    }
}
