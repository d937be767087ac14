//! The faults: what each hits, how long it lasts, and the bounds that calls have to keep meanwhile. Must not depend on
//! how calls and health reacted.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum as _;
use order_streams::{INVENTORY, ORDERS};
use serde_json::Value;

use super::drill::{self, Odd};
use super::fill;
use crate::soak::leader;
use crate::soak::plan::{Kind, Size, Target};
use crate::soak::site::Site;
use crate::usage::http;

/// A subject that the workers subscribe to.
const SUBJECT: &str = "reserve_inventory";
const LIMIT: Duration = Duration::from_secs(2);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Cause {
    /// kill -9 of the node that leads ORDERS
    LeaderKilled,
    /// kill -STOP of a node that a worker is connected to; the streams are led by others
    NodeFrozen,
    /// kill -9 of the node that leads ORDERS and of another: no quorum
    TwoNodesKilled,
    /// The nodes' storage is full
    StorageFull,
    /// ORDERS has reached its max_bytes
    StreamFull,
    /// kill -9 of one of two workers
    WorkerKilled,
    /// kill -9 of all workers
    AllWorkersKilled,
    /// kill -9 of one of two gateways
    GatewayKilled,
    /// kill -9 of every node, gateway and worker
    AllRestarted,
    /// Connections of gateways and workers to NATS are broken, and new ones are refused
    NatsCut,
    /// Connections of gateways and workers to NATS stay open, but pass no data
    NatsSilent,
    /// kill -9 of all gateways (this and those below: only with --fire)
    AllGatewaysKilled,
    /// kill -STOP of one of two workers
    WorkerFrozen,
    /// kill -9 of a worker, three times
    WorkerRestarts,
    /// ORDERS is edited, so that writes are refused
    StreamEdited,
    /// A dead letter, and two more gateways: a certificate expires soon, a collector is unreachable, a limit is reached
    Oddities,
}

impl Cause {
    /// The faults of the table.
    pub(crate) fn table() -> Vec<Cause> {
        Cause::value_variants()
            .iter()
            .copied()
            .take_while(|cause| *cause != Cause::AllGatewaysKilled)
            .collect()
    }

    /// The faults that fire alerts: together they fire every alert that any fault does.
    pub(crate) fn drills() -> Vec<Cause> {
        let all = Cause::value_variants().iter().copied();
        all.filter(|cause| !cause.alerts().is_empty()).collect()
    }

    /// The alerts that have to fire.
    pub(crate) fn alerts(self) -> &'static [&'static str] {
        match self {
            Cause::LeaderKilled => &["ReplicasNotCurrent", "NatsServerDown"],
            Cause::TwoNodesKilled => &[
                "StreamWithoutQuorum",
                "ServiceNotUp",
                "LedgerNotReadyAnywhere",
                "ErrorBudgetBurnsFast",
                "MethodFails",
            ],
            Cause::StorageFull => &["StorageNearlyFull", "WorkersNotReady"],
            Cause::StreamFull => &["StorageFull"],
            Cause::WorkerKilled => &["InstancesMissing"],
            Cause::AllWorkersKilled => &["WorkersDown", "RouteDown", "NoResponders"],
            Cause::NatsCut => &["NatsDisconnected", "JetStreamUnseen", "GatewayNotServing"],
            Cause::AllGatewaysKilled => &["GatewayDown"],
            Cause::WorkerFrozen => &["InstanceDown"],
            Cause::WorkerRestarts => &["RestartsOften"],
            Cause::StreamEdited => &["WritesRefused"],
            Cause::Oddities => {
                &["DeadLetters", "CertificateEnds", "CertificateEndsSoon", "TracesLost", "LimitsReached"]
            }
            Cause::NodeFrozen | Cause::GatewayKilled | Cause::AllRestarted | Cause::NatsSilent => &[],
        }
    }
}

/// A fault of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    pub(crate) lasts: Duration,
}

/// Bounds that calls have to keep, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    /// No call fails later than this after the fault. `None`: nothing is left to serve calls while it lasts.
    pub(crate) during: Option<f64>,
    /// The share of the calls in that time that may fail.
    pub(crate) share: Option<f64>,
    /// No call fails later than this after the end of the fault.
    pub(crate) after: f64,
}

/// What the fault will hit.
pub(crate) type Aims = Vec<(Kind, Target)>;

/// What was hit.
pub(crate) struct Struck {
    pub(crate) aims: Aims,
    odd: Option<Odd>,
}

impl Fault {
    /// Finds out what the fault will hit.
    pub(crate) async fn aim(&self, site: &Site, size: Size) -> anyhow::Result<Aims> {
        let of = |count: usize, target: fn(usize) -> Target| (0..count).map(target).collect::<Vec<_>>();
        let (gateways, workers) = (of(size.gateways, Target::Gateway), of(size.workers, Target::Worker));
        let all =
            |kind: Kind, targets: Vec<Target>| targets.into_iter().map(|target| (kind, target)).collect();
        Ok(match self.cause {
            Cause::LeaderKilled => vec![(Kind::Kill, Target::OrdersLeader)],
            Cause::NodeFrozen => vec![(Kind::Freeze, Target::Node(away(site, size.nodes).await?))],
            Cause::TwoNodesKilled => {
                let first = led(site, ORDERS, size.nodes).await?;
                let second = (first + 1) % size.nodes;
                vec![(Kind::Kill, Target::Node(first)), (Kind::Kill, Target::Node(second))]
            }
            Cause::StorageFull
            | Cause::StreamFull
            | Cause::WorkerRestarts
            | Cause::StreamEdited
            | Cause::Oddities => Vec::new(),
            Cause::WorkerKilled => vec![(Kind::Kill, Target::Worker(0))],
            Cause::AllWorkersKilled => all(Kind::Kill, workers),
            Cause::AllGatewaysKilled => all(Kind::Kill, gateways),
            Cause::WorkerFrozen => vec![(Kind::Freeze, Target::Worker(0))],
            Cause::GatewayKilled => vec![(Kind::Kill, Target::Gateway(0))],
            Cause::AllRestarted => {
                all(Kind::Kill, [gateways, workers, of(size.nodes, Target::Node)].concat())
            }
            Cause::NatsCut => all(Kind::Cut, [gateways, workers].concat()),
            Cause::NatsSilent => all(Kind::HalfOpen, [gateways, workers].concat()),
        })
    }

    /// Injects the fault. Returns what it hit.
    pub(crate) async fn begin(&self, aims: &Aims, site: &mut Site) -> anyhow::Result<Struck> {
        let mut struck = Struck { aims: Vec::new(), odd: None };
        match self.cause {
            Cause::StorageFull => fill::fill(site.link(), &site.monitors().await).await?,
            Cause::StreamFull => drill::bound(site.link(), true).await?,
            Cause::WorkerRestarts => drill::restart(site, Target::Worker(0)).await?,
            Cause::StreamEdited => drill::edit(site.link(), true).await?,
            Cause::Oddities => {
                drill::letter(site.link()).await?;
                struck.odd = Some(drill::odd(site).await?);
            }
            _ => {}
        }
        for (kind, target) in aims {
            struck.aims.push((*kind, site.strike(*kind, *target).await?));
        }
        Ok(struck)
    }

    /// Ends the fault, nodes first, as when a machine boots.
    pub(crate) async fn end(&self, struck: Struck, site: &mut Site, size: Size) -> anyhow::Result<()> {
        for (kind, target) in struck.aims.iter().rev() {
            site.relieve(*kind, *target).await?;
        }
        match self.cause {
            Cause::StorageFull => fill::empty(site.link()).await?,
            Cause::StreamFull => drill::bound(site.link(), false).await?,
            Cause::StreamEdited => drill::edit(site.link(), false).await?,
            Cause::Oddities => {
                drop(struck.odd);
                site.leave(size.gateways);
                drill::purge(site.link()).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// An election takes 4 to 9 s; if it has to be repeated, 9 s more.
    pub(crate) fn bounds(&self) -> Bounds {
        let (during, share, after) = match self.cause {
            Cause::LeaderKilled => (Some(15.0), None, 5.0),
            // A node that returns with a higher term makes the leaders step down, as NATS has no pre-vote
            // (nats-server's pull request 5331 would have had them ignore it). That is another fault.
            Cause::NodeFrozen => (Some(13.0), Some(0.05), 15.0),
            Cause::WorkerKilled => (Some(5.0), None, 5.0),
            Cause::AllRestarted => (None, None, 30.0),
            Cause::StreamFull | Cause::AllWorkersKilled | Cause::GatewayKilled => (None, None, 10.0),
            // Elections follow once there is room again.
            Cause::TwoNodesKilled | Cause::StorageFull => (None, None, 20.0),
            _ => (None, None, 15.0),
        };
        Bounds { during, share, after }
    }

    /// Whether calls do not depend on this process: it is killed while others go on serving, or it is connected to a
    /// frozen node and cut off for a moment.
    pub(crate) fn spares(&self, target: Target) -> bool {
        let alone = [Cause::WorkerKilled, Cause::WorkerFrozen, Cause::WorkerRestarts];
        (alone.contains(&self.cause) && target == Target::Worker(0))
            || (self.cause == Cause::NodeFrozen && matches!(target, Target::Worker(_)))
    }

    /// Whether this process serves even though orders fail: a worker, if a stream is full that it does not need for its
    /// replies.
    pub(crate) fn serves(&self, target: Target) -> bool {
        self.cause == Cause::StreamFull && matches!(target, Target::Worker(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.cause {
            Cause::LeaderKilled => "leader of ORDERS killed",
            Cause::NodeFrozen => "node frozen",
            Cause::TwoNodesKilled => "two of three nodes killed",
            Cause::StorageFull => "the nodes' storage full",
            Cause::StreamFull => "ORDERS at its max_bytes",
            Cause::WorkerKilled => "one of two workers killed",
            Cause::AllWorkersKilled => "both workers killed",
            Cause::GatewayKilled => "one of two gateways killed",
            Cause::AllRestarted => "everything killed and restarted",
            Cause::NatsCut => "NATS cut off: connections refused",
            Cause::NatsSilent => "NATS cut off: connections silent",
            Cause::AllGatewaysKilled => "both gateways killed",
            Cause::WorkerFrozen => "one of two workers frozen",
            Cause::WorkerRestarts => "a worker restarted three times",
            Cause::StreamEdited => "ORDERS edited",
            Cause::Oddities => "a dead letter, a certificate that expires, no collector, a limit reached",
        };
        write!(f, "{what}, {} s", self.lasts.as_secs())
    }
}

/// A node that a worker is connected to. Moves the streams' leaders to other nodes.
async fn away(site: &Site, nodes: usize) -> anyhow::Result<usize> {
    let mut found = None;
    for (node, monitor) in site.monitors().await.into_iter().enumerate() {
        let (_, body) = http(monitor, "/connz?subs=1", LIMIT).await?;
        let clients: Value = serde_json::from_str(&body)?;
        let listens = |client: &Value| {
            client["subscriptions_list"]
                .as_array()
                .is_some_and(|list| list.iter().any(|subject| subject == SUBJECT))
        };
        if clients["connections"].as_array().is_some_and(|all| all.iter().any(listens)) {
            found = Some(node);
        }
    }
    let node = found.context("no worker is connected to any node")?;
    for stream in [ORDERS, INVENTORY] {
        if led(site, stream, nodes).await? == node {
            leader::make(site.link(), stream, &format!("node{}", (node + 1) % nodes)).await?;
        }
    }
    Ok(node)
}

/// The node that leads a stream.
async fn led(site: &Site, stream: &str, nodes: usize) -> anyhow::Result<usize> {
    let name = leader::of(site.link(), stream).await?;
    (0..nodes).find(|node| name == format!("node{node}")).with_context(|| format!("an unknown leader {name}"))
}
