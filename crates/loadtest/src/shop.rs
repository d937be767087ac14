//! The NATS service behind the routes of `compare/shop.proto`, which `compare` starts. It does no more than it has to:
//! what is measured is not this.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use contract::inventory::v1::{Item, ItemAvailability};
use contract::orders::v1::{CheckInventoryRequest, CheckInventoryResponse};
use futures_util::StreamExt as _;
use nats::{Connection, Options};
use prost::Message as _;
use tokio::time::{sleep, timeout};

/// The subjects of the routes.
pub(crate) const CHECK: &str = "bench.check";
pub(crate) const BINARY: &str = "bench.binary";
pub(crate) const PAGES: &str = "bench.pages";
/// The messages of a stream of pages, and the length of each one's text.
pub(crate) const COUNT: usize = 2_000;
const TEXT: usize = 1 << 10;
const GROUP: &str = "bench";
/// How long the service may take to answer, and the pause between two looks.
const START: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);
/// How long a stream waits to be granted more messages.
const CREDIT: Duration = Duration::from_secs(20);

/// Options of `loadtest shop`
#[derive(clap::Args)]
pub(crate) struct Shop {
    /// URL of NATS
    #[arg(long)]
    nats_url: String,
}

/// Serves until it is killed.
pub(crate) async fn run(options: Shop) -> anyhow::Result<bool> {
    let link = Connection::connect(&Options::at(options.nats_url), "loadtest shop").await?;
    let client = link.client();
    let mut checks = client.queue_subscribe(CHECK, GROUP.to_owned()).await?;
    let mut binary = client.queue_subscribe(BINARY, GROUP.to_owned()).await?;
    let mut pages = client.queue_subscribe(PAGES, GROUP.to_owned()).await?;
    loop {
        tokio::select! {
            Some(request) = checks.next() => reply(client, &request, json(&request.payload)).await?,
            Some(request) = binary.next() => reply(client, &request, protobuf(&request.payload)).await?,
            Some(request) = pages.next() => { tokio::spawn(stream(client.clone(), request)); }
            else => return Ok(true),
        }
    }
}

/// Returns when the service answers.
pub(crate) async fn answers(url: &str) -> anyhow::Result<()> {
    let link = Connection::connect(&Options::at(url), "loadtest").await?;
    let asked = async {
        while link.client().request(CHECK, Bytes::from_static(b"[]")).await.is_err() {
            sleep(LOOK).await;
        }
    };
    timeout(START, asked).await.context("the service does not answer")
}

async fn reply(client: &Client, request: &Message, answer: anyhow::Result<Vec<u8>>) -> anyhow::Result<()> {
    let to = request.reply.clone().context("the request has no inbox")?;
    client.publish(to, answer?.into()).await?;
    Ok(())
}

fn json(request: &[u8]) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&answer(serde_json::from_slice(request)?))?)
}

fn protobuf(request: &[u8]) -> anyhow::Result<Vec<u8>> {
    Ok(answer(CheckInventoryRequest::decode(request)?.items).encode_to_vec())
}

fn answer(items: Vec<Item>) -> CheckInventoryResponse {
    let items = items.into_iter().map(|item| ItemAvailability {
        product_id: item.product_id,
        requested: item.quantity,
        available: item.quantity,
    });
    CheckInventoryResponse { available: true, items: items.collect() }
}

/// Sends all pages, and an empty message behind them. A gateway grants them, a plain client takes all.
async fn stream(client: Client, request: Message) -> anyhow::Result<()> {
    let to = request.reply.context("the request has no inbox")?;
    let header = |name| request.headers.as_ref().and_then(|headers| headers.get(name));
    let mut credit = match header("Stream-Credit").zip(header("Stream-Window")) {
        Some((subject, window)) => {
            let more = client.subscribe(subject.to_string()).await?;
            Some(Credit { left: window.as_str().parse()?, more })
        }
        None => None,
    };
    let page = Bytes::from(serde_json::to_vec(&serde_json::json!({ "text": "x".repeat(TEXT) }))?);
    for _ in 0..COUNT {
        if let Some(credit) = &mut credit {
            credit.spend().await?;
        }
        client.publish(to.clone(), page.clone()).await?;
    }
    client.publish(to, Bytes::new()).await?;
    Ok(())
}

/// How many messages may be sent.
struct Credit {
    left: usize,
    more: Subscriber,
}

impl Credit {
    async fn spend(&mut self) -> anyhow::Result<()> {
        if self.left == 0 {
            let more = timeout(CREDIT, self.more.next()).await?.context("the subscription has ended")?;
            self.left = std::str::from_utf8(&more.payload)?.parse()?;
        }
        self.left -= 1;
        Ok(())
    }
}
