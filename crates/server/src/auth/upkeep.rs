//! The tasks that keep keys and lists up to date. Must not depend on what they keep.

use std::sync::Arc;

use tokio::sync::watch;

use crate::fresh::{Kept, Sources};
use crate::reload::Reload;
use crate::supervisor::Supervisor;

/// A task that keeps something up to date for ever.
type UpkeepTask = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks that keep keys and lists up to date, to be run on one thread while the gateway runs.
#[derive(Default)]
pub struct Upkeep {
    /// Each with its name.
    tasks: Vec<(String, UpkeepTask)>,
    pub(super) sources: Sources,
}

impl Upkeep {
    /// Keeps a value that comes from files up to date.
    pub(crate) fn keep<T: Send + Sync + 'static>(&mut self, reload: Reload<T>) -> watch::Receiver<Arc<T>> {
        let latest = reload.latest();
        self.tasks.push((format!("reload of {}", reload.what()), Box::pin(reload.keep())));
        latest
    }

    /// Keeps keys, lists or CA certificates up to date: if that fails for too long, credentials that depend on them are
    /// rejected.
    pub(crate) fn guard<T: Send + Sync + 'static>(&mut self, reload: Reload<T>) -> Kept<T> {
        let fresh = reload.fresh().clone();
        self.sources.0.push(fresh.clone());
        Kept::new(self.keep(reload), fresh)
    }

    /// Adds another task.
    pub(crate) fn also(&mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push((name.to_owned(), Box::pin(task)));
    }

    /// The freshness of all sources.
    pub(crate) fn sources(&self) -> Sources {
        self.sources.clone()
    }

    /// Runs all tasks on the current runtime.
    pub fn spawn(self, supervisor: &Supervisor) {
        self.tasks.into_iter().for_each(|(name, task)| supervisor.spawn(name, task));
    }
}
