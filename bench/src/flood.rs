//! What floods do to callers who mean well: `bench flood`. Starts everything itself. One attack after the other, from a
//! process of its own; before, meanwhile and afterwards the same calls at the same rate, and once more while a server
//! beside is attacked in the same way, which is what the machine's two cores alone make of it.

mod attack;
mod bodies;
mod crowd;
mod exact;
mod field;
mod hammer;
mod healthy;
mod kind;
mod memory;
mod newcomers;
mod verdict;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use gateway::config::Limits;
use tokio::time::{Instant, sleep};

pub(crate) use attack::{Attack, run as attack};

use crate::cage::Means;
use field::Field;
use healthy::{Healthy, Seen};
use kind::{Kind, Port, Victim};
use memory::Peak;
use verdict::Round;
use wire::Told;

/// Before an attack is felt, and before calm is measured again.
const SETTLE: Duration = Duration::from_millis(500);
/// The longest that calm is measured; a server beside is attacked for twice as long.
const CALM: Duration = Duration::from_secs(10);
/// How long the gateway may take to give memory back.
const RETURN: Duration = Duration::from_secs(15);
/// How much longer than planned an attacker may take.
const LATE: Duration = Duration::from_secs(20);
/// One that says nothing is closed after ten seconds.
const SILENCE: f64 = 12.0;
const IDLE: usize = 5_000;
/// More than GW_MAX_CONNECTIONS, and how long they take to come and be noticed.
const CROWD: usize = 12_000;
const COMING: f64 = 6.0;
const HANDSHAKES: usize = 1_000;
/// More than `ulimit -n` has, and twice what health had seats for.
const IDLE_HTTP: usize = 1_100;
const IDLE_HEALTH: usize = 128;
const WATCHING: usize = 150;
const NAMING: usize = 16;
/// No attack goes on when this much memory is taken.
const LEASH: u64 = 2 << 30;
/// The largest message that the server beside takes: its library's own limit.
const BESIDE: usize = 4 << 20;

/// Options of `bench flood`
#[derive(clap::Args)]
pub(crate) struct Flood {
    /// Seconds of each attack
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Calls a second of those who mean well
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// Connections of an attacker at a time
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Which attacks; all, if none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Judge only what does not depend on time, attack nothing beside, and leave out the largest crowd
    #[arg(long)]
    brief: bool,
    /// Run everything in cgroups of the size that it is shipped with, less what orders take: 512 MiB for a gateway, 768 MiB for a worker
    #[arg(long)]
    as_shipped: bool,
    /// Attack the programs `gateway` and `inventory-worker` of this folder, as in target/release, and not this program's own
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

impl Flood {
    /// How long calm is measured.
    fn calm(&self) -> Duration {
        (Duration::from_secs_f64(self.seconds) / 2).min(CALM)
    }

    fn kinds(&self) -> Vec<Kind> {
        match self.only.is_empty() {
            true => Kind::ALL.into_iter().filter(|kind| !self.brief || *kind != Kind::Crowd).collect(),
            false => self.only.clone(),
        }
    }
}

/// Attacks, and says what became of those who mean well.
pub(crate) async fn run(options: Flood) -> anyhow::Result<bool> {
    crowd::raise()?;
    let mut good = if options.only.is_empty() { exact::run().await? } else { true };
    let means = if options.as_shipped { Means::find() } else { Means::None };
    if options.as_shipped {
        cli::say!("memory is bounded by {}", means.name());
    }
    let places = |kind: &Kind| kind.places().iter().map(|place| (*kind, *place)).collect::<Vec<_>>();
    let rounds: Vec<(Kind, (Victim, Port))> = options.kinds().iter().flat_map(places).collect();
    let attacked: Vec<Victim> =
        rounds.iter().flat_map(|(_, (victim, _))| [*victim, victim.served_by()]).collect();
    let mut field = Field::open(&attacked, &means, options.programs.as_deref()).await?;
    cli::say!("{}", verdict::HEAD);
    for served_by in [Victim::Tls, Victim::FewFiles, Victim::Gateway] {
        let rounds: Vec<_> =
            rounds.iter().filter(|(_, (victim, _))| victim.served_by() == served_by).collect();
        if rounds.is_empty() {
            continue;
        }
        let healthy = Healthy::open(&field.clients(served_by)?, options.rate).await?;
        sleep(4 * SETTLE).await;
        for (kind, place) in rounds {
            let round = field.round(*kind, *place, &healthy, &options).await?;
            good &= round.tell(options.brief);
        }
    }
    Ok(good)
}

impl Field {
    async fn round(
        &mut self,
        kind: Kind,
        place: (Victim, Port),
        healthy: &Healthy,
        options: &Flood,
    ) -> anyhow::Result<Round> {
        let (seconds, connections) = size(kind, options);
        let (attacked, bears) = (self.site(place.0)?, self.site(kind.bears(place.0))?);
        let (target, clients) = (attacked.at(place.1), self.clients(place.0.served_by())?);
        let calm = healthy.watch(options.calm()).await?;
        let control = match options.brief || !kind.has_like() {
            true => None,
            false => Some(self.control(kind, healthy, options, connections).await?),
        };
        let pid = bears.process.pid()?;
        let before = crate::usage::resident(pid)?;
        let log = self.logged()?;
        let peak = Peak::of(pid);
        healthy.begin()?;
        let (begun, length) = (Instant::now(), Duration::from_secs_f64(seconds));
        let (told, newcomers, probes) = tokio::join!(
            async {
                let attack = assault(kind, target, seconds, connections, Limits::default().max_request_bytes);
                tokio::select! {
                    told = attack => told,
                    // Where nothing bounds it, the machine has to be spared.
                    () = peak.reaches(LEASH) => Ok(Told { made: 1, ..Told::default() }),
                }
            },
            newcomers::callers(&clients, length),
            newcomers::probes(place.1, target, length),
        );
        let (told, most, took) = (told?, peak.most(), begun.elapsed());
        drop(peak);
        let mut ended = self.revive().await?;
        let during = healthy.end().await?;
        let (after, wait) = match ended.is_empty() {
            true => memory::returned(pid, before + verdict::KEPT, RETURN).await?,
            false => (0, Duration::ZERO),
        };
        if kind == Kind::Products
            && let Err(error) = self.restart(Victim::Worker).await
        {
            ended.push(format!("the worker does not come back: {error:#}"));
        }
        sleep(SETTLE).await;
        let again = healthy.watch(options.calm()).await?;
        let log = self.logged()? - log;
        let memory = verdict::Memory { before, most, after, wait };
        Ok(Round {
            kind,
            place,
            connections,
            calm,
            control,
            during,
            again,
            newcomers,
            probes,
            told,
            took,
            memory,
            log,
            ended,
        })
    }

    /// What is seen while the server beside is attacked.
    async fn control(
        &self,
        kind: Kind,
        healthy: &Healthy,
        options: &Flood,
        connections: usize,
    ) -> anyhow::Result<Seen> {
        let length = Duration::from_secs_f64(options.seconds).min(2 * CALM);
        // It would keep what is half sent: what it refuses at once is as much to read.
        let most = if kind == Kind::HalfSent { BESIDE + 1 } else { BESIDE };
        let attack = assault(kind, self.beside(), length.as_secs_f64() + 1.0, connections, most);
        let watch = async {
            sleep(SETTLE).await;
            healthy.watch(length).await
        };
        let (told, seen) = tokio::join!(attack, watch);
        told.context("the attack on a server beside")?;
        sleep(SETTLE).await;
        seen
    }
}

/// How long an attack is, and how many connections it has at a time.
fn size(kind: Kind, options: &Flood) -> (f64, usize) {
    match kind {
        Kind::Idle => (options.seconds.max(SILENCE), IDLE),
        Kind::Crowd => (options.seconds.max(COMING), CROWD),
        Kind::Handshakes => (options.seconds, HANDSHAKES),
        Kind::IdleHttp => (options.seconds, IDLE_HTTP),
        Kind::IdleHealth => (options.seconds, IDLE_HEALTH),
        Kind::HealthWatches => (options.seconds, WATCHING),
        Kind::Products => (options.seconds, NAMING),
        _ => (options.seconds, options.connections),
    }
}

/// Has a process attack what listens on this port; how its connections ended.
async fn assault(
    kind: Kind,
    target: SocketAddr,
    seconds: f64,
    connections: usize,
    most: usize,
) -> anyhow::Result<Told> {
    let target = target.to_string();
    let (seconds_text, connections) = (seconds.to_string(), connections.to_string());
    let arguments = ["attack", &target, "--kind", &kind.name(), "--seconds", &seconds_text];
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .args(arguments)
        .args(["--connections", &connections, "--most", &most.to_string()])
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let limit = Duration::from_secs_f64(seconds) + LATE;
    let output = tokio::time::timeout(limit, output).await.context("the attacker does not end")??;
    if !output.status.success() {
        bail!("the attacker ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("no result")
}
