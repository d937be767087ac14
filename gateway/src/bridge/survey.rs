//! A survey: which subjects are served now, as the services themselves say (ADR-32, `$SRV.INFO`). Must never know
//! what the subjects are for.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use link::Link;
use serde::Deserialize;
use tokio::time::timeout;

/// How long answers are collected.
const WINDOW: Duration = Duration::from_millis(300);
/// More answers than this are not read.
const MOST: usize = 10_000;

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    subject: String,
}

/// The wanted subjects that somebody serves. Ends early when all are found.
pub async fn served<'a>(link: &Link, wanted: &HashSet<&'a str>) -> HashSet<&'a str> {
    let mut found = HashSet::new();
    // The window's end is the normal one: nobody says when all have answered.
    let _ = timeout(WINDOW, collect(link, wanted, &mut found)).await;
    found
}

async fn collect<'a>(link: &Link, wanted: &HashSet<&'a str>, found: &mut HashSet<&'a str>) {
    let client = link.client();
    let inbox = client.new_inbox();
    let Ok(replies) = client.subscribe(inbox.clone()).await else { return };
    if client.publish_with_reply("$SRV.INFO", inbox, Bytes::new()).await.is_err() {
        return;
    }
    let mut replies = replies.take(MOST);
    while found.len() < wanted.len()
        && let Some(message) = replies.next().await
    {
        // Nobody there, or something that is no service: neither serves anything.
        let Ok(info) = serde_json::from_slice::<Info>(&message.payload) else { continue };
        found.extend(info.endpoints.iter().filter_map(|endpoint| wanted.get(endpoint.subject.as_str())));
    }
}
