//! What only a server's monitoring port says: whether each write is on the disk before it is acknowledged. NATS clients
//! are not told. Must never be needed to start.

use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For one server. It is asked once, at the start.
const LIMIT: Duration = Duration::from_secs(3);
/// The answer has a few kilobytes.
const MOST: u64 = 1 << 20;

/// What to do about it.
const REMEDY: &str = "`jetstream { sync_interval: always }` in its configuration";

#[derive(Deserialize)]
struct Report {
    config: Option<JetStream>,
}

#[derive(Deserialize)]
struct JetStream {
    #[serde(default)]
    sync_always: bool,
}

/// What is to be said about servers with these monitoring URLs, separated by commas: of each that does not sync every
/// write, or does not tell.
pub(crate) async fn warnings(urls: Option<&str>) -> Vec<String> {
    let Some(urls) = urls else {
        return vec![format!(
            "whether nats-server syncs each write before it acknowledges it cannot be seen from here: by default it does \
             not, and a power failure loses acknowledged orders; NATS_MONITOR_URL says where to look \
             (http://SERVER:8222), and the remedy is {REMEDY}"
        )];
    };
    let mut warnings = Vec::new();
    for url in urls.split(',').map(str::trim) {
        let shown = cli::url::shown(url);
        match timeout(LIMIT, syncs(url)).await.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(true) => {}
            Ok(false) => warnings.push(format!(
                "the nats-server at {shown} acknowledges writes that are not on its disk yet: a power failure loses them; \
                 the remedy is {REMEDY}"
            )),
            Err(why) => warnings.push(format!(
                "whether the nats-server at {shown} syncs each write cannot be seen: {why}; its /jsz has to say \
                 `sync_always`"
            )),
        }
    }
    warnings
}

/// One GET without a client library: HTTP/1.0, no TLS.
async fn syncs(url: &str) -> Result<bool, String> {
    let text = |error: std::io::Error| error.to_string();
    let rest = url.strip_prefix("http://").ok_or("it is no http:// URL")?;
    if cli::url::user_information(url).is_some() {
        return Err(
            "a user or a password in NATS_MONITOR_URL is not used, as monitoring asks for none".to_owned()
        );
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).await.map_err(text)?;
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { "/jsz".to_owned() } else { format!("/{path}/jsz") };
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await.map_err(text)?;
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let report: Report =
        serde_json::from_slice(&answer[body..]).map_err(|_| "the answer is not that of /jsz".to_owned())?;
    Ok(report.config.ok_or("it has no JetStream")?.sync_always)
}

#[cfg(test)]
mod tests {
    use local_nats::{Options, Server};

    use super::*;

    #[tokio::test]
    async fn a_server_that_does_not_sync_each_write_is_named_and_one_that_does_is_not() {
        let start = |config: Option<&str>| {
            Server::with(Options { config: config.map(str::to_owned), ..Options::default() }).unwrap()
        };
        let (lazy, careful) = (start(None), start(Some("jetstream { sync_interval: always }")));
        let urls = format!("{}, {}/", lazy.monitor_url(), careful.monitor_url());
        let said = warnings(Some(&urls)).await;
        assert!(said.len() == 1 && said[0].contains(&lazy.monitor_url()), "{said:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_seen_is_said_to_be_so() {
        let secret = "http://ann:hush@127.0.0.1:1/?token=hush";
        for urls in [None, Some("https://one"), Some("http://127.0.0.1:1"), Some("nonsense"), Some(secret)] {
            let said = warnings(urls).await;
            assert!(said.len() == 1 && said[0].contains("cannot be seen"), "{said:?}");
            assert!(!said[0].contains("hush"), "{said:?}");
        }
    }
}
