//! The time limits of requests and chunks, and waits that say what they wait for. Must not know what is transferred.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

/// Time limit for an answer of JetStream's API.
pub(super) const ATTEMPT: Duration = Duration::from_secs(10);
/// Time limit for one chunk.
pub(super) const STEP: Duration = Duration::from_secs(60);
/// A shorter wait is not mentioned.
const FIRST: Duration = Duration::from_secs(3);
/// Time between two mentions of the same wait.
const REMIND: Duration = Duration::from_secs(30);

/// Awaits something that has a deadline of its own. Says on standard error what it is after 3 s, and then every 30 s.
pub(super) async fn told<F: Future>(what: std::fmt::Arguments<'_>, awaited: F) -> F::Output {
    let (mut awaited, mut pause) = (pin!(awaited), FIRST);
    loop {
        match timeout(pause, awaited.as_mut()).await {
            Ok(output) => return output,
            Err(_) => cli::note!("waiting for {what}"),
        }
        pause = REMIND;
    }
}
