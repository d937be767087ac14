//! What routes of a file cost: the messages of CheckInventory by a compiled-in route, and by routes of a proto file, in JSON
//! and in protobuf; and streams of messages against a NATS client's own. Must not depend on how they are transcoded.

use local_nats::spare_port;

use super::report::Report;
use super::turns::Bench;
use crate::deployment::Deployment;
use crate::load::{Kind, Load};
use crate::process::{Process, serves};
use crate::shop::{self, COUNT};

const PROTO: &str = include_str!("shop.proto");
/// Items of a request: a usual order, and a large one.
const ITEMS: [usize; 2] = [3, 23];

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

pub(super) async fn measure(
    bench: &Bench,
    deployment: &Deployment,
    report: &mut Report,
) -> anyhow::Result<()> {
    let routed = Routed::start(deployment).await?;
    for items in ITEMS {
        let load = |kind| anyhow::Ok(Load { items, ..routed.load(kind)? });
        let loads = [
            ("compiled in: CheckInventory", load(Kind::Check)?),
            ("of a file, JSON", load(Kind::Routed)?),
            ("of a file, protobuf", load(Kind::Binary)?),
        ];
        let [compiled, json, binary] = bench.turns(loads).await?;
        let title = format!("routes of a file, 64 concurrent calls, {items} items");
        report.section(&title, [&compiled, &json, &binary]);
        let cpu = |series: &super::report::Series| series.cpu("gateway");
        let goal = if items == ITEMS[0] { "at most 0.95" } else { "at most 0.75" };
        report.ratio("CPU per call, JSON of a file / compiled in", cpu(&json).over(cpu(&compiled)), goal);
        report.ratio(
            "CPU per call, protobuf / compiled in",
            cpu(&binary).over(cpu(&compiled)),
            "at most 0.85",
        );
    }
    let streams = |load: Load| Load { callers: 4, ..load };
    let raw = Load::of(Kind::NatsPages, &deployment.nats.url());
    let loads = [("NATS: pages", streams(raw)), ("gateway: pages", streams(routed.load(Kind::Pages)?))];
    let [raw, pages] = bench.turns(loads).await?;
    report.section(&format!("4 streams at a time, of {COUNT} messages of 1 KiB"), [&raw, &pages]);
    report.ratio("messages/s, gateway's / NATS's", pages.rate().over(raw.rate()), "at least 0.6");
    Ok(())
}
