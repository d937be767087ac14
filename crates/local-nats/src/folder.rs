//! A data folder and the files in it that belong to a running server. Must not depend on processes or ports.
//!
//! nats-server does not keep a second server out of its data folder, so we do, with two locks. Only the owner locks the
//! folder itself. `nats-server.pid` is locked by the owner, the watchdog and the server, which inherit the lock: if the
//! owner is killed with -9, this lock shows when its server is gone too.

use std::fs::{self, File, Permissions};
use std::io::{self, Seek};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::config::{Options, Ports};
use crate::error::Error;
use crate::lock;
use crate::run::tail;

/// The server of a killed owner has just been told to stop. Longer than the watchdog gives it before it kills it.
const LEAVE: Duration = Duration::from_secs(7);

/// A child that the former owner was just starting may hold the lock from its fork to its exec.
const FORK: Duration = Duration::from_secs(1);

/// How many lines of the log an error shows.
const SHOWN: usize = 20;

/// A data folder, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    log: PathBuf,
    /// The path as the caller gave it, which may be a link.
    chosen_log: bool,
    lock: File,
    /// Kept for its lock.
    _owner: File,
    /// Kept so that it is removed at the end.
    _temporary: Option<TempDir>,
}

impl Folder {
    pub(crate) fn open(options: &Options) -> Result<Folder, Error> {
        let (path, temporary) = match &options.data_dir {
            Some(path) => (path.clone(), None),
            None => {
                let folder =
                    TempDir::with_prefix("nats-").map_err(Error::system("make a temporary folder"))?;
                (folder.path().to_path_buf(), Some(folder))
            }
        };
        let failed = || Error::system(format!("open the data folder {}", path.display()));
        let path = make(&path).map_err(failed())?;
        let owner = File::open(&path).map_err(failed())?;
        // Appending, so that an id is written at the start of the emptied file, whoever wrote to it before. A file of
        // another user, or a link to one, would be emptied, and the process whose id it contains would be killed.
        let lock = cli::file::own(&path.join("nats-server.pid")).map_err(failed())?;
        let ours = lock::exclusive(&owner, FORK).map_err(failed())?
            && lock::exclusive(&lock, LEAVE).map_err(failed())?;
        if !ours {
            return Err(Error::Busy { pid: lock::holder(&lock), folder: path });
        }
        let log = options.log.clone().unwrap_or_else(|| path.join("nats-server.log"));
        Ok(Folder {
            path,
            log,
            chosen_log: options.log.is_some(),
            lock,
            _owner: owner,
            _temporary: temporary,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// The folder in which the server reports its ports.
    pub(crate) fn ports(&self) -> PathBuf {
        self.path.join("ports")
    }

    /// Prepares the folder for a new server process: writes its configuration, and removes what an earlier one
    /// reported.
    pub(crate) fn prepare(&self, options: &Options, wanted: Ports) -> io::Result<PathBuf> {
        let (config, ports) = (self.path.join("nats-server.conf"), self.ports());
        match fs::remove_dir_all(&ports) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => cli::file::new_folder(&ports)?,
        }
        let text = options.text(wanted, &ports);
        cli::file::replace(&config, |out| out.write_all(text.as_bytes()))?;
        self.lock.set_len(0)?;
        (&self.lock).rewind()?;
        Ok(config)
    }

    /// The locked file, to be inherited by the server, whose process id is written into it.
    pub(crate) fn lock(&self) -> &File {
        &self.lock
    }

    /// The log, opened for appending.
    pub(crate) fn open_log(&self) -> io::Result<File> {
        if self.chosen_log {
            return File::options().create(true).append(true).open(&self.log);
        }
        cli::file::own(&self.log)
    }

    /// The last lines of the log.
    pub(crate) fn log_tail(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("{}: {error}", self.log.display()),
            |bytes| tail(&String::from_utf8_lossy(&bytes), SHOWN),
        )
    }
}

/// Creates the folder if missing. The path must not change its meaning with the working folder, and the
/// server's configuration can only name it in UTF-8.
fn make(path: &Path) -> io::Result<PathBuf> {
    cli::file::folder(path)?;
    let path = path.canonicalize()?;
    // The folder is for its owner only, even if an older version created it.
    if fs::metadata(&path)?.uid() == rustix::process::geteuid().as_raw() {
        fs::set_permissions(&path, Permissions::from_mode(0o700))?;
    }
    match path.to_str() {
        Some(_) => Ok(path),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "its path is not UTF-8")),
    }
}
