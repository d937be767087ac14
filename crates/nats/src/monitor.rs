//! Facts that only a server's monitoring port reports: whether each write is synced to disk before it is acknowledged,
//! and how soon a cluster notices that one of its servers is frozen. A start must not depend on them.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Time limit for one server. It is asked once, at start.
const LIMIT: Duration = Duration::from_secs(3);
/// The maximum size of an answer, which has a few kilobytes.
const MOST: u64 = 1 << 20;

/// Routes that are pinged in time have a different round-trip time after this interval.
const PINGED: Duration = Duration::from_secs(3);
/// How often they are read again. Two round trips may well take the same number of microseconds.
const LOOKS: u32 = 2;

/// The remedy.
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

#[derive(Deserialize)]
struct Routes {
    #[serde(default)]
    routes: Vec<Route>,
}

/// The round-trip time changes with each ping; no monitoring page reports the ping interval.
#[derive(Deserialize)]
struct Route {
    rid: u64,
    #[serde(default)]
    rtt: String,
}

/// Warnings about the servers with these monitoring URLs (separated by commas): those that do not sync every write, and
/// those that do not answer.
pub(crate) async fn warnings(urls: Option<&str>) -> Vec<String> {
    let Some(urls) = urls else {
        return vec![format!(
            "cannot tell whether nats-server syncs each write before it acknowledges it: by default it does not, and a \
             power failure loses acknowledged writes; set GW_NATS_MONITOR_URL to its monitoring port \
             (http://SERVER:8222) to check; the remedy is {REMEDY}"
        )];
    };
    let mut warnings = Vec::new();
    for url in urls.split(',').map(str::trim) {
        let shown = cli::url::shown(url);
        match timeout(LIMIT, syncs(url)).await.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(true) => {}
            Ok(false) => warnings.push(format!(
                "the nats-server at {shown} acknowledges writes before they are on its disk: a power failure loses \
                 them; the remedy is {REMEDY}"
            )),
            Err(why) => warnings.push(format!(
                "cannot tell whether the nats-server at {shown} syncs each write: {why}; its /jsz must report \
                 `sync_always`"
            )),
        }
    }
    warnings
}

/// Warnings about the servers that ping one of their routes too rarely. Takes as long as two pings at the required
/// interval. Servers that do not answer have been named by [`warnings`].
pub(crate) async fn routes(urls: &str) -> Vec<String> {
    let urls: Vec<&str> = urls.split(',').map(str::trim).collect();
    let mut seen = look(&urls).await;
    let mut still: Vec<HashMap<u64, bool>> =
        seen.iter().map(|routes| routes.keys().map(|rid| (*rid, true)).collect()).collect();
    for _ in 0..LOOKS {
        sleep(PINGED).await;
        let now = look(&urls).await;
        for ((still, before), now) in still.iter_mut().zip(&seen).zip(&now) {
            // A route that has gone counts for nothing.
            still.retain(|rid, still| {
                *still &= before.get(rid) == now.get(rid);
                now.contains_key(rid)
            });
        }
        seen = now;
    }
    let slow = urls.iter().zip(still).filter(|(_, still)| still.values().any(|still| *still));
    let warning = |(url, _): (&&str, _)| {
        format!(
            "the nats-server at {} pings the other servers of its cluster less often than every {} s: a frozen or \
             cut-off server keeps receiving its share of the requests for a minute or more; the remedy is \
             `cluster {{ ping_interval: \"2s\", ping_max: 2 }}` in the configuration of each",
            cli::url::shown(url),
            (PINGED * LOOKS).as_secs(),
        )
    };
    slow.map(warning).collect()
}

/// The round-trip times of each server's routes.
async fn look(urls: &[&str]) -> Vec<HashMap<u64, String>> {
    let one = async |url: &&str| {
        let found = timeout(LIMIT, get::<Routes>(url, "routez")).await;
        let routes = found.ok().and_then(Result::ok).map_or_else(Vec::new, |found| found.routes);
        routes.into_iter().map(|route| (route.rid, route.rtt)).collect()
    };
    futures_util::future::join_all(urls.iter().map(one)).await
}

async fn syncs(url: &str) -> Result<bool, String> {
    Ok(get::<Report>(url, "jsz").await?.config.ok_or("JetStream is not enabled")?.sync_always)
}

/// One GET without a client library: HTTP/1.0, no TLS.
pub(crate) async fn get<T: DeserializeOwned>(url: &str, page: &str) -> Result<T, String> {
    let text = |error: std::io::Error| error.to_string();
    let rest = url.strip_prefix("http://").ok_or("it is not an http:// URL")?;
    if cli::url::user_information(url).is_some() {
        return Err(
            "GW_NATS_MONITOR_URL must not contain a user or a password: monitoring ports use none".to_owned()
        );
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).await.map_err(text)?;
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { format!("/{page}") } else { format!("/{path}/{page}") };
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await.map_err(text)?;
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    serde_json::from_slice(&answer[body..]).map_err(|_| format!("the answer is not a nats-server's /{page}"))
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

    /// Two servers that are one cluster, with this in their `cluster` block.
    async fn pair(lines: &str) -> String {
        let ports = [0; 2].map(|_| local_nats::spare_port().unwrap());
        let servers = ports.map(|own| {
            let urls = ports.map(|port| format!("\"nats://127.0.0.1:{port}\"")).join(", ");
            let cluster =
                format!("cluster {{ name: two, listen: \"127.0.0.1:{own}\", routes: [{urls}]\n{lines} }}");
            let config = Some(format!("server_name: s{own}\n{cluster}"));
            Server::with(Options { config, ready: local_nats::Ready::Listening, ..Options::default() })
                .unwrap()
        });
        let url = servers[0].monitor_url();
        let linked = async || !look(&[&url]).await[0].is_empty();
        timeout(Duration::from_secs(20), async {
            while !linked().await {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("a cluster");
        // The first ping is sent after a second, whatever is configured.
        sleep(PINGED).await;
        routes(&servers.each_ref().map(Server::monitor_url).join(",")).await.join("\n")
    }

    #[tokio::test]
    async fn a_cluster_that_notices_a_frozen_server_late_is_named_and_one_that_does_soon_is_not() {
        let shipped = "ping_interval: \"2s\"\nping_max: 2";
        let (late, soon) = futures_util::future::join(pair(""), pair(shipped)).await;
        assert!(late.contains("ping_interval") && late.lines().count() == 2, "{late}");
        assert_eq!(soon, "");
    }

    #[tokio::test]
    async fn what_cannot_be_seen_is_said_to_be_so() {
        let secret = "http://ann:hush@127.0.0.1:1/?token=hush";
        for urls in [None, Some("https://one"), Some("http://127.0.0.1:1"), Some("nonsense"), Some(secret)] {
            let said = warnings(urls).await;
            assert!(said.len() == 1 && said[0].contains("cannot tell"), "{said:?}");
            assert!(!said[0].contains("hush"), "{said:?}");
        }
    }
}
