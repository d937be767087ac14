//! A queue to a client that may be slow: how long it may keep its sender waiting in total. Must not know what is sent.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How long a client may keep its sender waiting in total, and how much each message that it reads adds to that.
const PATIENCE: Duration = Duration::from_secs(10);
const EARNED: Duration = Duration::from_millis(5);

/// The sending end, and how much longer the client may keep it waiting.
#[derive(Debug)]
pub struct PatientSender<T> {
    sender: mpsc::Sender<T>,
    patience: Duration,
}

/// A queue of at most this many messages.
pub fn queue<T>(most: usize) -> (PatientSender<T>, mpsc::Receiver<T>) {
    let (sender, receiver) = mpsc::channel(most);
    (PatientSender { sender, patience: PATIENCE }, receiver)
}

impl<T> PatientSender<T> {
    /// Sends a message. Whether it was taken: not if the client has left, or is too slow.
    pub async fn send(&mut self, message: T) -> bool {
        let message = match self.sender.try_send(message) {
            Ok(()) => {
                self.patience = PATIENCE.min(self.patience + EARNED);
                return true;
            }
            Err(mpsc::error::TrySendError::Full(message)) => message,
            Err(mpsc::error::TrySendError::Closed(_)) => return false,
        };
        let begun = Instant::now();
        let taken = matches!(timeout(self.patience, self.sender.send(message)).await, Ok(Ok(())));
        let waited = begun.elapsed().saturating_sub(EARNED);
        self.patience = self.patience.saturating_sub(waited);
        taken
    }

    /// Waits until the client has left.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_little_now_and_then_loses_its_place_and_a_quick_one_does_not() {
        for (pause, messages, keeps) in [(20 * EARNED, 100_000, false), (EARNED / 2, 20_000, true)] {
            let (mut client, mut received) = queue(32);
            tokio::spawn(async move {
                while received.recv().await.is_some() {
                    tokio::time::sleep(pause).await;
                }
            });
            let (begun, mut sent) = (Instant::now(), 0);
            while sent < messages && client.send(sent).await {
                sent += 1;
            }
            assert_eq!(sent == messages, keeps, "{pause:?}: {sent}");
            assert!(keeps || begun.elapsed() < 2 * PATIENCE, "{:?}", begun.elapsed());
        }
    }
}
