//! The peer that `compare` measures beside routes: a gateway that was written by hand in Go (`crates/loadtest/peer`). Must
//! not depend on what it is compared with.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use local_nats::spare_port;
use tokio::process::Command;
use tokio::time::timeout;

use crate::cage::Cage;
use crate::deployment::Deployment;
use crate::load::{Kind, Load};
use crate::process::{Process, listens};

/// Its source.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peer");
/// How long building it may take; the first time, Go fetches what it needs.
const BUILD: Duration = Duration::from_secs(300);

/// The running peer.
pub(super) struct Peer {
    process: Process,
    url: String,
}

impl Peer {
    /// Builds and starts it. None, and a line that says why, where that cannot be done.
    pub(super) async fn start(deployment: &Deployment) -> anyhow::Result<Option<Peer>> {
        let program = deployment.file("peer");
        if let Err(why) = build(&program).await {
            cli::say!("NOT DONE: the peer in Go: {why}");
            return Ok(None);
        }
        let (port, nats) = (spare_port()?, deployment.nats.url());
        let address = format!("127.0.0.1:{port}");
        let arguments = ["-addr", &address, "-nats", &nats];
        let process =
            Process::caged(Some(program), &arguments, &deployment.file("peer.log"), Cage::default())?;
        listens(port).await?;
        Ok(Some(Peer { process, url: format!("http://{address}") }))
    }

    /// Calls of its rpc.
    pub(super) fn load(&self) -> anyhow::Result<Load> {
        let watch = vec![("gateway".to_owned(), self.process.pid()?)];
        Ok(Load { watch, ..Load::of(Kind::Routed, &self.url) })
    }
}

/// Builds the program. An error says why it cannot be built here.
async fn build(program: &Path) -> Result<(), String> {
    if !Path::new(SOURCE).is_dir() {
        return Err("its source is not where this program was built".to_owned());
    }
    let built = Command::new("go")
        .args(["build", "-buildvcs=false", "-mod=readonly", "-o"])
        .arg(program)
        .arg(".")
        .current_dir(SOURCE)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let built = timeout(BUILD, built).await.map_err(|_| format!("it was not built within {BUILD:?}"))?;
    let built = built.map_err(|error| format!("`go` cannot be run: {error}"))?;
    let told = String::from_utf8_lossy(&built.stderr);
    if built.status.success() {
        Ok(())
    } else {
        Err(told.lines().last().unwrap_or("`go build` failed").to_owned())
    }
}
