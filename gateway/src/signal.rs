//! Signals: SIGTERM and SIGINT stop, SIGHUP reloads. Must not depend on what is stopped.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

/// Receives the signals that ask this process to stop.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Installs the handlers: from now on these signals no longer end the process.
    pub fn listen() -> std::io::Result<Stop> {
        Ok(Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Asks with each SIGHUP, until it is dropped.
pub(crate) struct Hangup {
    _asking: AbortOnDropHandle<()>,
}

impl Hangup {
    /// Installs the handler: from now on SIGHUP no longer ends the process.
    pub(crate) fn listen(ask: impl Fn() + Send + 'static) -> std::io::Result<Hangup> {
        let mut hangup = signal(SignalKind::hangup())?;
        let asking = async move {
            while hangup.recv().await.is_some() {
                ask();
            }
        };
        Ok(Hangup { _asking: AbortOnDropHandle::new(tokio::spawn(asking)) })
    }
}
