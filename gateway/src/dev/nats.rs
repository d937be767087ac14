//! The nats-server of `dev`: found or installed, started, and restarted if it ends. Must not depend on what is stored
//! on it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use local_nats::{Error, Options, Server};
use tokio::task::spawn_blocking;

use super::words::say;

/// The default port of NATS.
const PORT: u16 = 4222;
/// Interval between two checks of the process.
const LOOK: Duration = Duration::from_millis(500);

/// A running nats-server.
pub(super) struct Nats {
    /// None only while a call uses it.
    server: Option<Server>,
    url: String,
}

impl Nats {
    /// Starts a nats-server with its data in this folder.
    pub(super) async fn start(folder: &Path, port: Option<u16>) -> anyhow::Result<Nats> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).is_ok().then_some(PORT);
        let options =
            Options { data_dir: Some(folder.join("nats")), port: port.or_else(free), ..Options::default() };
        say("nats-server   looking for the binary, or installing it");
        let start = || {
            let binary = local_nats::find()?;
            Ok((Server::with(options)?, binary))
        };
        let (server, binary) = spawn_blocking(start).await?.map_err(words)?;
        let url = server.url();
        say(&format!("nats-server   {} ({}), on {url}", binary.version, binary.origin));
        Ok(Nats { server: Some(server), url })
    }

    /// Its URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Restarts it whenever it has ended; returns if a restart fails.
    pub(super) async fn keep(&mut self) -> anyhow::Error {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(mut server) = self.server.take_if(|server| !server.is_running()) else { continue };
            say("nats-server   ended; starting it again");
            let restarted = spawn_blocking(move || server.restart().map(|()| server)).await;
            match restarted {
                Ok(Ok(server)) => self.server = Some(server),
                Ok(Err(error)) => return words(error),
                Err(error) => return anyhow!(error),
            }
        }
    }

    /// Stops it gracefully.
    pub(super) async fn stop(self) {
        // It stops on drop; an error means that this panicked, but the drop was completed.
        let _ = spawn_blocking(move || drop(self.server)).await;
    }
}

/// Adds a hint to an error, if there is one.
fn words(error: Error) -> anyhow::Error {
    let hint = match error {
        Error::Busy { .. } => Some("is another `gateway dev` running? A second one needs its own --data-dir"),
        Error::PortTaken(_) => Some("choose another --nats-port"),
        _ => None,
    };
    let error = anyhow!(error);
    match hint {
        Some(hint) => anyhow!("{error}: {hint}"),
        None => error,
    }
}
