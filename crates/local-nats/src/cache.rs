//! The copy of nats-server in the user's cache folder, which is run only if no other user can have put it there. Must
//! not depend on how one is downloaded.
//!
//! The file appears complete or not at all: it is created in a folder beside it and renamed into place. A lock lets
//! only one process install; the others wait and use the result.

use std::env;
use std::error::Error;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::binary::{Binary, Origin, Unusable};
use crate::lock;

/// The version that we install. A server that is already there may be another version, if it is new enough.
pub(crate) const VERSION: &str = "2.15.1";

const OTHERS_WRITE: u32 = 0o002;
/// In a sticky folder, only a file's owner can replace it.
const STICKY: u32 = 0o1000;

/// Time limit for the lock: longer than all ways to install together, so that the holder ends before a waiter gives up.
const LOCK: Duration = Duration::from_secs(600);

/// A folder for one version of nats-server. It need not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct Cache(PathBuf);

/// The lock held while a process installs.
pub(crate) struct Installing {
    _lock: File,
}

impl Cache {
    /// The user's cache. `None` if the environment does not name the user's folders.
    pub(crate) fn of_user() -> Option<Cache> {
        let folder = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(home)))?;
        Some(Cache::under(&caches))
    }

    /// Our folder within a folder of caches.
    pub(crate) fn under(caches: &Path) -> Cache {
        Cache(caches.join("order-gateway").join(format!("nats-server-{VERSION}")))
    }

    /// The path of the cached copy, existing or not.
    pub(crate) fn slot(&self) -> PathBuf {
        self.0.join("nats-server")
    }

    /// The cached copy, if there is one and it works.
    pub(crate) fn copy(&self, origin: Origin) -> Result<Binary, Unusable> {
        let slot = self.slot();
        ours(&slot).map_err(|why| Unusable::Shared { path: slot.clone(), why })?;
        Binary::check(&slot, origin)
    }

    /// Waits for the lock to install.
    pub(crate) fn lock(&self) -> io::Result<Installing> {
        cli::file::folder(&self.0)?;
        ours(&self.0).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
        let _lock = cli::file::own(&self.0.join("install.lock"))?;
        let late =
            || io::Error::new(io::ErrorKind::TimedOut, "another process has been installing for too long");
        if lock::exclusive(&_lock, LOCK)? { Ok(Installing { _lock }) } else { Err(late()) }
    }

    /// Fetches a program into an empty folder, and moves it to the slot if it works.
    pub(crate) fn fill(
        &self,
        _held: &Installing,
        origin: Origin,
        fetch: Fetch,
    ) -> Result<Binary, Box<dyn Error>> {
        // In the cache folder, because a rename cannot cross file systems.
        let folder = tempfile::tempdir_in(&self.0)?;
        let fetched = fetch(folder.path())?;
        fs::set_permissions(&fetched, Permissions::from_mode(0o755))?;
        Binary::check(&fetched, origin)?;
        fs::rename(&fetched, self.slot())?;
        Ok(self.copy(origin)?)
    }
}

/// Checks that a file or folder belongs to us or to root, and that no folder above lets other users replace it.
fn ours(path: &Path) -> Result<(), String> {
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let found = fs::symlink_metadata(path).map_err(|error| told(path, error))?;
    let us = rustix::process::geteuid().as_raw();
    if found.is_symlink() || ![0, us].contains(&found.uid()) {
        return Err(format!("{} is a link or belongs to another user", path.display()));
    }
    for place in path.ancestors() {
        let found = fs::metadata(place).map_err(|error| told(place, error))?;
        let sticky = found.is_dir() && found.mode() & STICKY != 0;
        if found.mode() & OTHERS_WRITE != 0 && !sticky {
            return Err(format!("every user of this machine can write to {}", place.display()));
        }
    }
    Ok(())
}

/// Fetches into an empty folder, and returns the program's path in it.
pub(crate) type Fetch = fn(&Path) -> Result<PathBuf, Box<dyn Error>>;
