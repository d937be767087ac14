//! Facts that only a server's monitoring port reports: whether each write is synced to disk before it is acknowledged,
//! and how soon a cluster notices that one of its servers is frozen. A start must not depend on them.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::sleep;

use crate::monitor::Monitor;

/// Time limit for one server. It is asked once, at start.
const LIMIT: Duration = Duration::from_secs(3);

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

/// Warnings about the servers with these monitoring ports: those that do not sync every write, and those that do not
/// answer.
pub(crate) async fn warnings(monitor: Option<&Monitor>) -> Vec<String> {
    let Some(monitor) = monitor else {
        return vec![format!(
            "cannot tell whether nats-server syncs each write before it acknowledges it: by default it does not, and a \
             power failure loses acknowledged writes; set GW_NATS_MONITOR_URL to its monitoring port \
             (http://SERVER:8222) to check; the remedy is {REMEDY}"
        )];
    };
    let mut warnings = Vec::new();
    for url in monitor.urls() {
        let shown = cli::url::shown(url);
        match syncs(monitor, url).await {
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
pub(crate) async fn routes(monitor: &Monitor) -> Vec<String> {
    let mut seen = look(monitor).await;
    let mut still: Vec<HashMap<u64, bool>> =
        seen.iter().map(|routes| routes.keys().map(|rid| (*rid, true)).collect()).collect();
    for _ in 0..LOOKS {
        sleep(PINGED).await;
        let now = look(monitor).await;
        for ((still, before), now) in still.iter_mut().zip(&seen).zip(&now) {
            // A route that has gone counts for nothing.
            still.retain(|rid, still| {
                *still &= before.get(rid) == now.get(rid);
                now.contains_key(rid)
            });
        }
        seen = now;
    }
    let slow = monitor.urls().iter().zip(still).filter(|(_, still)| still.values().any(|still| *still));
    let warning = |(url, _): (&String, _)| {
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
async fn look(monitor: &Monitor) -> Vec<HashMap<u64, String>> {
    let one = async |url: &String| {
        let found = monitor.get::<Routes>(url, "routez", LIMIT).await;
        let routes = found.map_or_else(|_| Vec::new(), |found| found.routes);
        routes.into_iter().map(|route| (route.rid, route.rtt)).collect()
    };
    futures_util::future::join_all(monitor.urls().iter().map(one)).await
}

async fn syncs(monitor: &Monitor, url: &str) -> Result<bool, String> {
    let report: Report = monitor.get(url, "jsz", LIMIT).await.map_err(|error| error.to_string())?;
    Ok(report.config.ok_or("JetStream is not enabled")?.sync_always)
}

#[cfg(test)]
mod tests {
    use local_nats::{Options, Server};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_server_that_does_not_sync_each_write_is_named_and_one_that_does_is_not() {
        let start = |config: Option<&str>| {
            Server::with(Options { config: config.map(str::to_owned), ..Options::default() }).unwrap()
        };
        let (lazy, careful) = (start(None), start(Some("jetstream { sync_interval: always }")));
        let urls = format!("{}, {}/", lazy.monitor_url(), careful.monitor_url());
        let said = warnings(Some(&Monitor::of(&urls, None))).await;
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
        let first = Monitor::of(&servers[0].monitor_url(), None);
        let linked = async || !look(&first).await[0].is_empty();
        timeout(Duration::from_secs(20), async {
            while !linked().await {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("a cluster");
        // The first ping is sent after a second, whatever is configured.
        sleep(PINGED).await;
        routes(&Monitor::of(&servers.each_ref().map(Server::monitor_url).join(","), None)).await.join("\n")
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
        for urls in [
            None,
            Some("https://127.0.0.1:1"),
            Some("ftp://one"),
            Some("http://127.0.0.1:1"),
            Some("nonsense"),
            Some(secret),
        ] {
            let monitor = urls.map(|urls| Monitor::of(urls, None));
            let said = warnings(monitor.as_ref()).await;
            assert!(said.len() == 1 && said[0].contains("cannot tell"), "{said:?}");
            assert!(!said[0].contains("hush"), "{said:?}");
        }
    }
}
