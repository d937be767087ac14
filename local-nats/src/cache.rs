//! The copy of nats-server in the user's cache folder, which is run only if nobody else can have put it there. Must never
//! know how one is fetched.
//!
//! Whoever sees the file sees a whole one: it is made in a folder beside it and renamed into place. A lock
//! lets only one process fetch; the others wait and use what it fetched.

use std::env;
use std::error::Error;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::binary::{Binary, Origin, Unusable};
use crate::lock;

/// What we install. Others that are new enough do as well when they are there already.
pub(crate) const VERSION: &str = "2.15.1";

const OTHERS_WRITE: u32 = 0o002;
/// In such a folder, only its owner replaces a file.
const STICKY: u32 = 0o1000;

/// Longer than all ways to fetch may take together: the holder ends before a waiter gives up.
const LOCK: Duration = Duration::from_secs(600);

/// A folder for one version of nats-server. It need not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct Cache(PathBuf);

/// Held while a process installs.
pub(crate) struct Installing {
    _lock: File,
}

impl Cache {
    /// The user's. `None` when the environment does not say where the user's files are.
    pub(crate) fn of_user() -> Option<Cache> {
        let folder = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(home)))?;
        Some(Cache::under(&caches))
    }

    /// Ours in a folder of caches.
    pub(crate) fn under(caches: &Path) -> Cache {
        Cache(caches.join("order-gateway").join(format!("nats-server-{VERSION}")))
    }

    /// Where the cached copy is, or would be.
    pub(crate) fn slot(&self) -> PathBuf {
        self.0.join("nats-server")
    }

    /// The cached copy, if there is one and it works.
    pub(crate) fn copy(&self, origin: Origin) -> Result<Binary, Unusable> {
        let slot = self.slot();
        ours(&slot).map_err(|why| Unusable::Shared { path: slot.clone(), why })?;
        Binary::check(&slot, origin)
    }

    /// Waits for the right to install.
    pub(crate) fn lock(&self) -> io::Result<Installing> {
        cli::file::folder(&self.0)?;
        ours(&self.0).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
        let _lock = cli::file::own(&self.0.join("install.lock"))?;
        let late =
            || io::Error::new(io::ErrorKind::TimedOut, "another process has been installing for too long");
        if lock::exclusive(&_lock, LOCK)? { Ok(Installing { _lock }) } else { Err(late()) }
    }

    /// Has a program fetched into an empty folder, and puts it into the slot if it works.
    pub(crate) fn fill(
        &self,
        _held: &Installing,
        origin: Origin,
        fetch: Fetch,
    ) -> Result<Binary, Box<dyn Error>> {
        // In the cache folder, as a rename does not cross file systems.
        let folder = tempfile::tempdir_in(&self.0)?;
        let fetched = fetch(folder.path())?;
        fs::set_permissions(&fetched, Permissions::from_mode(0o755))?;
        Binary::check(&fetched, origin)?;
        fs::rename(&fetched, self.slot())?;
        Ok(self.copy(origin)?)
    }
}

/// A file or folder belongs to us, or to root, and no folder on the way to it lets everybody put others in its place.
fn ours(path: &Path) -> Result<(), String> {
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let found = fs::symlink_metadata(path).map_err(|error| told(path, error))?;
    let us = rustix::process::geteuid().as_raw();
    if found.is_symlink() || ![0, us].contains(&found.uid()) {
        return Err(format!("{} is a link, or belongs to another user", path.display()));
    }
    for place in path.ancestors() {
        let found = fs::metadata(place).map_err(|error| told(place, error))?;
        let sticky = found.is_dir() && found.mode() & STICKY != 0;
        if found.mode() & OTHERS_WRITE != 0 && !sticky {
            return Err(format!("every user of this machine may write to {}", place.display()));
        }
    }
    Ok(())
}

/// Fetches into an empty folder, and returns where in it the program is.
pub(crate) type Fetch = fn(&Path) -> Result<PathBuf, Box<dyn Error>>;
