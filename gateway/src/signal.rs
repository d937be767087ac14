//! Stop signals: SIGTERM and SIGINT. Must not depend on what is stopped.

use tokio::signal::unix::{Signal, SignalKind, signal};

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
