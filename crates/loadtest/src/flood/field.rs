//! The targets: nats-server, workers and gateways on known ports, in cgroups if requested. Must not depend on the
//! attacks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::Context as _;
use local_nats::{Server, spare_port};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::kind::{Port, Victim};
use crate::cage::Means;
use crate::deployment;
use crate::process::{Process, listens, serves};

const PRODUCTS: usize = 1_000;
const ORDERS: &str = "orders.v1.OrderService";
/// A common `ulimit -n`, and the connections that a gateway with so few files can have.
const FILES: (u64, &str) = (1_024, "90");

/// A gateway or a worker.
pub(super) struct Site {
    victim: Victim,
    pub(super) process: Process,
    grpc: u16,
    health: u16,
    http: u16,
}

/// Everything that an attack needs.
pub(super) struct Field {
    pub(super) sites: Vec<Site>,
    /// TLS configuration of clients of the gateway with TLS.
    trust: Option<ClientTlsConfig>,
    /// The bare server.
    _beside: Process,
    beside: u16,
    nats: Server,
    folder: TempDir,
}

impl Field {
    /// Starts what these need, in cgroups if requested and possible.
    pub(super) async fn open(
        victims: &[Victim],
        means: &Means,
        programs: Option<&Path>,
    ) -> anyhow::Result<Field> {
        let nats = deployment::nats("").await?;
        deployment::stock(&nats, PRODUCTS).await?;
        let (folder, beside) = (tempfile::tempdir()?, spare_port()?);
        let _beside = Process::echo(beside, &folder.path().join("beside"))?;
        listens(beside).await?;
        let mut field = Field { sites: Vec::new(), trust: None, _beside, beside, nats, folder };
        // A gateway needs a worker to serve orders.
        for victim in [Victim::Worker, Victim::Gateway, Victim::Tls, Victim::FewFilesWorker, Victim::FewFiles]
        {
            if victims.contains(&victim) || matches!(victim, Victim::Worker | Victim::Gateway) {
                field.start(victim, means, programs).await?;
            }
        }
        Ok(field)
    }

    async fn start(&mut self, victim: Victim, means: &Means, programs: Option<&Path>) -> anyhow::Result<()> {
        let [grpc, health, http] = [spare_port()?, spare_port()?, spare_port()?];
        let name = format!("{victim:?}").to_lowercase();
        let cage = means.cage(&name, victim.memory())?;
        let local = |port| format!("127.0.0.1:{port}");
        let (cage, more) = match victim {
            Victim::Gateway | Victim::Worker => (cage, Vec::new()),
            Victim::Tls => (cage, self.certificate()?),
            Victim::FewFiles => {
                (cage.files(FILES.0), vec!["--max-connections".to_owned(), FILES.1.to_owned()])
            }
            Victim::FewFilesWorker => (cage.files(FILES.0), Vec::new()),
        };
        let url = self.nats.url();
        let (health_addr, http_addr, grpc_addr) = (local(health), local(http), local(grpc));
        let mut words =
            vec!["worker", "--nats-url", &url, "--health-addr", &health_addr, "--http-addr", &http_addr];
        let service = if victim.serves_calls() { ORDERS } else { "" };
        if victim.serves_calls() {
            words[0] = "gateway";
            words.extend(["--grpc-addr", &grpc_addr]);
        }
        words.extend(more.iter().map(String::as_str));
        let program = programs.map(|folder| {
            let name = if victim.serves_calls() { "gateway" } else { "inventory-worker" };
            folder.join(name)
        });
        if program.is_some() {
            words[0] = "serve";
        }
        let log = self.folder.path().join(format!("{name}.log"));
        let process = Process::caged(program, &words, &log, cage)?;
        serves(health, service).await.with_context(|| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{name}: {}", said.lines().last().unwrap_or("it printed nothing"))
        })?;
        self.sites.push(Site { victim, process, grpc, health, http });
        Ok(())
    }

    /// The flags of a gateway with TLS.
    fn certificate(&mut self) -> anyhow::Result<Vec<String>> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let (cert_file, key_file) = (self.folder.path().join("tls.crt"), self.folder.path().join("tls.key"));
        std::fs::write(&cert_file, cert.pem())?;
        std::fs::write(&key_file, signing_key.serialize_pem())?;
        let trust = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert.pem()));
        self.trust = Some(trust.domain_name("localhost"));
        let words = |flag: &str, file: PathBuf| [flag.to_owned(), file.display().to_string()];
        Ok([words("--tls-cert", cert_file), words("--tls-key", key_file)].concat())
    }

    /// The process for this victim.
    pub(super) fn site(&self, victim: Victim) -> anyhow::Result<&Site> {
        let found = self.sites.iter().find(|site| site.victim == victim);
        found.ok_or_else(|| anyhow::anyhow!("{victim:?} was not started"))
    }

    /// The endpoint for clients of a gateway.
    pub(super) fn clients(&self, victim: Victim) -> anyhow::Result<Endpoint> {
        let port = self.site(victim)?.grpc;
        match (victim, &self.trust) {
            (Victim::Tls, Some(trust)) => {
                Ok(Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?.tls_config(trust.clone())?)
            }
            _ => Ok(Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?),
        }
    }

    /// The bare server's address.
    pub(super) fn beside(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.beside))
    }

    /// Bytes that all processes have logged.
    pub(super) fn logged(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for file in std::fs::read_dir(self.folder.path())? {
            let file = file?;
            if file.path().extension().is_some_and(|end| end == "log") {
                sum += file.metadata()?.len();
            }
        }
        Ok(sum)
    }

    /// Restarts processes that have exited, which they never should, and returns their names.
    pub(super) async fn revive(&mut self) -> anyhow::Result<Vec<String>> {
        let mut ended = Vec::new();
        for site in &mut self.sites {
            if let Some(status) = site.process.end()? {
                ended.push(format!("the {} exited: {}", site.victim.name(), words(status)));
                site.process.restart()?;
                site.serves().await?;
            }
        }
        Ok(ended)
    }

    /// Kills a process and restarts it. It has to recover from its streams.
    pub(super) async fn restart(&mut self, victim: Victim) -> anyhow::Result<()> {
        for site in self.sites.iter_mut().filter(|site| site.victim == victim) {
            site.process.signal(rustix::process::Signal::KILL)?;
            site.process.ended(std::time::Duration::from_secs(5)).await?;
            site.process.restart()?;
            site.serves().await?;
        }
        Ok(())
    }
}

impl Site {
    /// One of its ports.
    pub(super) fn at(&self, port: Port) -> SocketAddr {
        let port = match port {
            Port::Grpc => self.grpc,
            Port::Health => self.health,
            Port::Http => self.http,
        };
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    async fn serves(&self) -> anyhow::Result<()> {
        serves(self.health, if self.victim.serves_calls() { ORDERS } else { "" }).await
    }
}

fn words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status.signal() {
        Some(9) => "killed (SIGKILL), perhaps by the OOM killer".to_owned(),
        _ => status.to_string(),
    }
}
