//! What floods do to callers who mean well: `bench flood`. Starts everything itself. One attack after the other, from a
//! process of its own; before, meanwhile and afterwards the same calls at the same rate, and once more while a server
//! beside is attacked in the same way, which is what the machine's two cores alone make of it.

mod attack;
mod crowd;
mod exact;
mod healthy;
mod kind;
mod memory;
mod verdict;
mod wire;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use gateway::config::Limits;
use local_nats::spare_port;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::time::{Instant, sleep};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

pub(crate) use attack::{Attack, run as attack};

use crate::process::{Process, listens, serves};
use crate::stage::Stage;
use healthy::{Healthy, newcomers};
use kind::Kind;
use memory::Peak;
use verdict::Round;
use wire::Told;

const PRODUCTS: usize = 1_000;
/// Before an attack is felt, and before calm is measured again.
const SETTLE: Duration = Duration::from_millis(500);
/// How long the gateway may take to give memory back.
const RETURN: Duration = Duration::from_secs(15);
/// How much longer than planned an attacker may take.
const LATE: Duration = Duration::from_secs(20);
/// One that says nothing is closed after ten seconds.
const SILENCE: f64 = 12.0;
const IDLE: usize = 5_000;
/// More than MAX_CONNECTIONS, and how long they take to come and be noticed.
const CROWD: usize = 12_000;
const COMING: f64 = 6.0;
const HANDSHAKES: usize = 1_000;
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
}

/// Everything that an attack needs.
struct Field {
    stage: Stage,
    /// A gateway with TLS, where that is what is attacked.
    tls: (Process, u16),
    tls_clients: Endpoint,
    /// A bare server beside.
    beside: (Process, u16),
}

/// Attacks, and says what became of those who mean well.
pub(crate) async fn run(options: Flood) -> anyhow::Result<bool> {
    crowd::raise()?;
    let exact = if options.only.is_empty() { exact::run().await? } else { true };
    let field = Field::open().await?;
    let all = || Kind::ALL.into_iter().filter(|kind| !options.brief || *kind != Kind::Crowd).collect();
    let kinds = if options.only.is_empty() { all() } else { options.only.clone() };
    let (over_tls, over_tcp): (Vec<Kind>, Vec<Kind>) = kinds.into_iter().partition(|kind| kind.tls());
    let mut good = exact;
    println!("{}", verdict::HEAD);
    for (kinds, clients) in
        [(over_tcp, Endpoint::from_shared(field.stage.url())?), (over_tls, field.tls_clients.clone())]
    {
        if kinds.is_empty() {
            continue;
        }
        let healthy = Healthy::open(&clients, options.rate).await?;
        sleep(4 * SETTLE).await;
        for kind in kinds {
            let round = field.round(kind, &healthy, &options).await?;
            good &= round.tell(options.brief);
        }
    }
    Ok(good)
}

impl Field {
    async fn open() -> anyhow::Result<Field> {
        let stage = Stage::open(PRODUCTS, "").await?;
        let [grpc, http, health, port] = [spare_port()?, spare_port()?, spare_port()?, spare_port()?];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let (cert_file, key_file) = (stage.file("tls.crt"), stage.file("tls.key"));
        std::fs::write(&cert_file, cert.pem())?;
        std::fs::write(&key_file, signing_key.serialize_pem())?;
        let (cert_file, key_file) = (cert_file.display().to_string(), key_file.display().to_string());
        let health_addr = format!("127.0.0.1:{health}");
        let more = ["--tls-cert", &cert_file, "--tls-key", &key_file, "--health-addr", &health_addr];
        let tls = Process::gateway(&stage.nats.url(), grpc, http, &more, &stage.file("gateway-tls"))?;
        serves(health, "orders.v1.OrderService").await?;
        let trust = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert.pem()));
        let tls_clients = Endpoint::from_shared(format!("https://127.0.0.1:{grpc}"))?
            .tls_config(trust.domain_name("localhost"))?;
        let beside = Process::echo(port, &stage.file("beside"))?;
        listens(port).await?;
        Ok(Field { stage, tls: (tls, grpc), tls_clients, beside: (beside, port) })
    }

    async fn round(&self, kind: Kind, healthy: &Healthy, options: &Flood) -> anyhow::Result<Round> {
        let (seconds, connections) = match kind {
            Kind::Idle => (SILENCE, IDLE),
            Kind::Crowd => (options.seconds.max(COMING), CROWD),
            Kind::Handshakes => (options.seconds, HANDSHAKES),
            _ => (options.seconds, options.connections),
        };
        let length = Duration::from_secs_f64(options.seconds);
        let (gateway, port, clients) = match kind.tls() {
            true => (&self.tls.0, self.tls.1, self.tls_clients.clone()),
            false => (&self.stage.gateway, self.stage.grpc, Endpoint::from_shared(self.stage.url())?),
        };
        let calm = healthy.watch(length / 2).await?;
        // A server without TLS, without a limit on connections and without a list has nothing to compare with.
        let control = if options.brief || kind.counts_heads() || kind == Kind::SlowReaders {
            None
        } else {
            let attack = assault(kind, self.beside.1, options.seconds + 1.0, connections, BESIDE);
            let watch = async {
                sleep(SETTLE).await;
                healthy.watch(length).await
            };
            let (told, seen) = tokio::join!(attack, watch);
            told.context("the attack on a server beside")?;
            sleep(SETTLE).await;
            Some(seen?)
        };
        let pid = gateway.pid()?;
        let before = crate::usage::resident(pid)?;
        let log = self.logged()?;
        let peak = Peak::of(pid);
        healthy.begin()?;
        let begun = Instant::now();
        let (told, newcomers) = tokio::join!(
            assault(kind, port, seconds, connections, Limits::default().max_request_bytes),
            newcomers(&clients, Duration::from_secs_f64(seconds)),
        );
        let (told, most, took) = (told?, peak.most(), begun.elapsed());
        drop(peak);
        let during = healthy.end().await?;
        let (after, wait) = memory::returned(pid, before + verdict::KEPT, RETURN).await?;
        sleep(SETTLE).await;
        let again = healthy.watch(length / 2).await?;
        let log = self.logged()? - log;
        let memory = verdict::Memory { before, most, after, wait };
        Ok(Round { kind, connections, calm, control, during, again, newcomers, told, took, memory, log })
    }

    /// Bytes that both gateways have logged.
    fn logged(&self) -> anyhow::Result<u64> {
        let size = |name| anyhow::Ok(std::fs::metadata(self.stage.file(name))?.len());
        Ok(size("gateway")? + size("gateway-tls")?)
    }
}

/// Has a process attack what listens on this port; how its connections ended.
async fn assault(
    kind: Kind,
    port: u16,
    seconds: f64,
    connections: usize,
    most: usize,
) -> anyhow::Result<Told> {
    let target = SocketAddr::from(([127, 0, 0, 1], port)).to_string();
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
