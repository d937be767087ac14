//! `loadtest flood`: what floods do to well-behaved clients. Starts everything itself. Attacks run one after the other,
//! from a separate process. Before, during and after each, the same calls are made at the same rate; and once more
//! while a bare server is attacked in the same way, which shows the effect of sharing the machine's cores.

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

/// Time until an attack takes effect, and before the baseline is measured again.
const SETTLE: Duration = Duration::from_millis(500);
/// Longest measurement without attack; the bare server is attacked for twice as long.
const CALM: Duration = Duration::from_secs(10);
/// How long the gateway may take to return memory.
const RETURN: Duration = Duration::from_secs(15);
/// How much longer than planned the attacker may take.
const LATE: Duration = Duration::from_secs(20);
/// A connection that sends nothing is closed after ten seconds.
const SILENCE: f64 = 12.0;
const IDLE: usize = 5_000;
/// More than GW_MAX_CONNECTIONS, and how long they take to connect and to have an effect.
const CROWD: usize = 12_000;
const COMING: f64 = 6.0;
const HANDSHAKES: usize = 1_000;
/// More than `ulimit -n`, and twice the former connection limit of the health port.
const IDLE_HTTP: usize = 1_100;
const IDLE_HEALTH: usize = 128;
const WATCHING: usize = 150;
const NAMING: usize = 16;
/// An attack is stopped at this much memory.
const LEASH: u64 = 2 << 30;
/// The largest message that the bare server accepts: its library's default.
const BESIDE: usize = 4 << 20;

/// Options of `loadtest flood`
#[derive(clap::Args)]
pub(crate) struct Flood {
    /// Duration of each attack, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Calls per second of the well-behaved client
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// Concurrent connections of the attacker
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Attacks to run; default: all
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Check only what does not depend on time, do not attack the bare server, and leave out the attack with the most
    /// connections
    #[arg(long)]
    brief: bool,
    /// Run each process in a cgroup with its shipped memory limit less what orders take: gateway 512 MiB, worker 768
    /// MiB
    #[arg(long)]
    as_shipped: bool,
    /// Attack the programs `gateway` and `inventory-worker` of this folder (as target/release) instead of those built
    /// in
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

impl Flood {
    /// How long to measure without attack.
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

/// Runs the attacks, and reports their effect on the well-behaved client.
pub(crate) async fn run(options: Flood) -> anyhow::Result<bool> {
    crowd::raise()?;
    let mut good = if options.only.is_empty() { exact::run().await? } else { true };
    let means = if options.as_shipped { Means::find() } else { Means::None };
    if options.as_shipped {
        cli::say!("memory is limited by {}", means.name());
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
                    // Without a limit on memory, this protects the machine.
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
            ended.push(format!("the worker did not come back: {error:#}"));
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

    /// What the client sees while the bare server is attacked.
    async fn control(
        &self,
        kind: Kind,
        healthy: &Healthy,
        options: &Flood,
        connections: usize,
    ) -> anyhow::Result<Seen> {
        let length = Duration::from_secs_f64(options.seconds).min(2 * CALM);
        // It would keep unfinished messages. Messages that it refuses at once are as much to read.
        let most = if kind == Kind::HalfSent { BESIDE + 1 } else { BESIDE };
        let attack = assault(kind, self.beside(), length.as_secs_f64() + 1.0, connections, most);
        let watch = async {
            sleep(SETTLE).await;
            healthy.watch(length).await
        };
        let (told, seen) = tokio::join!(attack, watch);
        told.context("the attack on the bare server")?;
        sleep(SETTLE).await;
        seen
    }
}

/// Duration and concurrent connections of an attack.
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

/// Runs the attacker's process against this port. Returns how its connections ended.
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
    let output = tokio::time::timeout(limit, output).await.context("the attacker did not exit in time")??;
    if !output.status.success() {
        bail!("the attacker exited with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the attacker printed no result")
}
