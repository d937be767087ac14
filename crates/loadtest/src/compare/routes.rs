//! What routes of a file cost: the messages of CheckInventory by a compiled-in route, and by routes of a proto file, in JSON
//! and in protobuf; and streams of messages against a NATS client's own. Must not depend on how they are transcoded.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use contract::inventory::v1::{Item, ItemAvailability};
use contract::orders::v1::{CheckInventoryRequest, CheckInventoryResponse};
use contract::route::Routed as _;
use local_nats::spare_port;
use prost::Message as _;

use super::peer::Peer;
use super::report::{Figures, Report, Series};
use super::turns::Bench;
use crate::cage::Cage;
use crate::deployment::Deployment;
use crate::load::{Kind, Load, product};
use crate::process::{Process, serves};
use crate::shop::{self, COUNT};

const PROTO: &str = include_str!("shop.proto");
/// Items of a request: a usual order, and a large one.
const ITEMS: [usize; 2] = [3, 23];
/// Conversions of a request and a reply, in each round.
const CODINGS: usize = 20_000;
/// Streams at a time.
const STREAMS: usize = 4;

/// The service, and a gateway with routes of a file beside those that are compiled in.
struct Routed {
    gateway: Process,
    url: String,
    service: Process,
}

impl Routed {
    async fn start(deployment: &Deployment) -> anyhow::Result<Routed> {
        let file = deployment.file("shop.proto");
        std::fs::write(&file, PROTO)?;
        let [grpc, http] = [spare_port()?, spare_port()?];
        let url = deployment.nats.url();
        let service = Process::shop(&url, &deployment.file("shop"))?;
        shop::answers(&url).await?;
        let file = file.to_string_lossy();
        let more = ["--orders", "true", "--proto", &file];
        let gateway = Process::gateway(&url, grpc, http, &more, &deployment.file("routed"))?;
        serves(grpc, "orders.v1.OrderService").await?;
        Ok(Routed { gateway, url: format!("http://127.0.0.1:{grpc}"), service })
    }

    fn load(&self, kind: Kind) -> anyhow::Result<Load> {
        let watch =
            vec![("gateway".to_owned(), self.gateway.pid()?), ("service".to_owned(), self.service.pid()?)];
        Ok(Load { watch, ..Load::of(kind, &self.url) })
    }
}

/// `before`: the program of the build before.
pub(super) async fn measure(
    bench: &Bench,
    deployment: &Deployment,
    before: Option<&Path>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let routed = Routed::start(deployment).await?;
    let before = match before {
        Some(program) => Some(Before::start(deployment, program).await?),
        None => None,
    };
    for items in ITEMS {
        let load = |kind| anyhow::Ok(Load { items, ..routed.load(kind)? });
        let baseline = match &before {
            Some(before) => ("CheckInventory, the build before", Load { items, ..before.load()? }),
            None => ("CheckInventory, compiled in", load(Kind::Check)?),
        };
        let loads = [
            baseline,
            ("of a file, JSON", load(Kind::Routed)?),
            ("of a file, protobuf", load(Kind::Binary)?),
        ];
        let [compiled, json, binary] = bench.turns(loads).await?;
        let title = format!("routes of a file, 64 concurrent calls, {items} items");
        report.section(&title, [&compiled, &json, &binary]);
        let over = |series: &Series| series.cpu("gateway").over(compiled.cpu("gateway"));
        let goal = if items == ITEMS[0] { "at most 0.95" } else { "at most 0.75" };
        report.ratio("CPU per call, JSON of a file / the first", over(&json), goal);
        report.ratio("CPU per call, protobuf / the first", over(&binary), "at most 0.85");
        let codecs = (0..bench.rounds).map(|_| codecs(items)).collect::<anyhow::Result<_>>()?;
        report.ratio("codec alone, plan / generated", Figures(codecs), "at most 0.5");
    }
    if let Some(peer) = Peer::start(deployment).await? {
        let loads =
            [("by hand in Go", peer.load()?), ("by a route of a file, JSON", routed.load(Kind::Routed)?)];
        let [peer, json] = bench.turns(loads).await?;
        report.section("the same rpc, grpc-go and nats.go by hand, 3 items", [&peer, &json]);
        report.ratio("CPU per call, the route's / Go's", json.cpu("gateway").over(peer.cpu("gateway")), "");
        report.ratio("rate, the route's / Go's", json.rate().over(peer.rate()), "");
    }
    let streams = |load: Load| Load { callers: STREAMS, ..load };
    let raw = Load::of(Kind::NatsPages, &deployment.nats.url());
    let loads = [("NATS: pages", streams(raw)), ("gateway: pages", streams(routed.load(Kind::Pages)?))];
    let [raw, pages] = bench.turns(loads).await?;
    report.section(&format!("{STREAMS} streams at a time, of {COUNT} messages of 1 KiB"), [&raw, &pages]);
    report.ratio("messages/s, gateway's / NATS's", pages.rate().over(raw.rate()), "at least 0.6");
    Ok(())
}

/// The time that a plan takes for a request and its reply, over the time of the generated code.
fn codecs(items: usize) -> anyhow::Result<f64> {
    let catalog = orders::served::contract();
    let plan = &catalog.route(CheckInventoryRequest::ROUTE.path).context("the route")?.codec;
    let generated = CheckInventoryRequest::ROUTE;
    let wishes = (0..items).map(|number| Item { product_id: product(number), quantity: 1 });
    let wishes = CheckInventoryRequest { items: wishes.collect() }.encode_to_vec();
    let found = (0..items).map(|number| ItemAvailability {
        product_id: product(number),
        requested: 1,
        available: 1_000_000,
    });
    let found = CheckInventoryResponse { available: true, items: found.collect() };
    let found = CheckInventoryRequest::reply_to_payload(&found)?;
    let timed = |call: &dyn Fn() -> bool| -> anyhow::Result<Duration> {
        let begun = Instant::now();
        anyhow::ensure!((0..CODINGS).all(|_| call()), "a payload cannot be converted");
        Ok(begun.elapsed())
    };
    let plans = timed(&|| plan.request(black_box(&wishes)).is_ok() && plan.reply(black_box(&found)).is_ok())?;
    let typed = timed(&|| {
        (generated.request)(black_box(&wishes)).is_ok() && (generated.reply)(black_box(&found)).is_ok()
    })?;
    Ok(plans.as_secs_f64() / typed.as_secs_f64())
}

/// A gateway of the build before.
struct Before {
    gateway: Process,
    url: String,
}

impl Before {
    async fn start(deployment: &Deployment, program: &Path) -> anyhow::Result<Before> {
        let [grpc, http] = [spare_port()?, spare_port()?];
        let (url, grpc_addr) = (deployment.nats.url(), format!("127.0.0.1:{grpc}"));
        let http_addr = format!("127.0.0.1:{http}");
        let arguments = ["gateway", "--nats-url", &url, "--grpc-addr", &grpc_addr, "--http-addr", &http_addr];
        let (program, log) = (Some(program.to_owned()), deployment.file("before"));
        let gateway = Process::caged(program, &arguments, &log, Cage::default())?;
        serves(grpc, "orders.v1.OrderService").await?;
        Ok(Before { gateway, url: format!("http://127.0.0.1:{grpc}") })
    }

    fn load(&self) -> anyhow::Result<Load> {
        let watch = vec![("gateway".to_owned(), self.gateway.pid()?)];
        Ok(Load { watch, ..Load::of(Kind::Check, &self.url) })
    }
}
