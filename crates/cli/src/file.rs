//! Files with data or secrets: created for their owner only, whatever the umask, and never through a link that somebody
//! placed at the path. `-` is standard input or output. Must not depend on the contents.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::OFlags;
use tempfile::PersistError;

use crate::out::told;

/// File modes for the owner only.
const FILE: u32 = 0o600;
const FOLDER: u32 = 0o700;
/// The maximum size of a file that is read into memory.
const LARGEST: u64 = 1 << 30;
/// Names of this process's standard output. Opening it again would overwrite it from its beginning.
const STDOUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
/// Names of its standard error.
const STDERR: [&str; 3] = ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"];

/// Creates a folder and its missing parents. An existing folder is left unchanged.
///
/// # Errors
/// The system's error.
pub fn folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(FOLDER))
}

/// Creates a folder that must not exist yet.
///
/// # Errors
/// The system's error.
pub fn new_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(FOLDER))
}

/// Creates a file that must not exist yet, for writing.
///
/// # Errors
/// The system's error.
pub fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(FILE).open(path)?;
    file.set_permissions(Permissions::from_mode(FILE))?;
    Ok(file)
}

/// Replaces a file atomically. A link is replaced, not followed.
///
/// # Errors
/// The system's error, or that of `fill`.
pub fn replace(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // With an unpredictable name, and for its owner only.
    let file = tempfile::Builder::new().prefix(".part-").tempfile_in(folder)?;
    let mut out = BufWriter::new(file.as_file());
    fill(&mut out)?;
    out.flush()?;
    drop(out);
    file.as_file().set_permissions(Permissions::from_mode(FILE))?;
    file.as_file().sync_all()?;
    settle(file.persist(path), path)
}

/// A file that is itself a mount point, as in containers, cannot be replaced. It is overwritten in place.
fn settle(persisted: Result<File, PersistError>, path: &Path) -> io::Result<()> {
    let PersistError { error, file } = match persisted {
        Ok(_) => return Ok(()),
        Err(failed) => failed,
    };
    if !matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::CrossesDevices) {
        return Err(error);
    }
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let mut there = OpenOptions::new().write(true).custom_flags(nofollow).open(path)?;
    // Only its owner may change the mode; other writers leave it as it is.
    let _ = there.set_permissions(Permissions::from_mode(FILE));
    there.set_len(0)?;
    io::copy(&mut file.reopen()?, &mut there)?;
    there.sync_all()
}

/// Whether a path (not the target of a link there) is in a folder of devices or processes: such a path is a device or
/// another process's open file, so no file may be created there.
fn is_system(path: &Path) -> bool {
    let Some(folder) = path.parent() else { return false };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(folder) = folder.canonicalize() else { return false };
    (folder.starts_with("/dev") && !folder.starts_with("/dev/shm")) || folder.starts_with("/proc")
}

/// Opens a file of ours for reading and appending, and creates it if missing. A link, or another user's file, is
/// refused.
///
/// # Errors
/// The system's error, or the reason why the file is refused.
pub fn own(path: &Path) -> io::Result<File> {
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options.create(true).read(true).append(true).mode(FILE).custom_flags(nofollow);
    let refuse = |why: &str| {
        io::Error::new(ErrorKind::PermissionDenied, format!("{} {why}: remove it", path.display()))
    };
    let link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let file = options.open(path).map_err(|error| if link { refuse("is a link") } else { error })?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(refuse("is not a regular file"));
    }
    if found.nlink() != 1 {
        return Err(refuse("has several names (hard links)"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(refuse("belongs to another user"));
    }
    file.set_permissions(Permissions::from_mode(FILE))?;
    Ok(file)
}

/// Writes a command's output to a file, which is replaced, or to standard output or error. Open files under /dev or
/// /proc are appended to.
///
/// # Errors
/// The system's error, or that of `fill`.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    if STDOUT.iter().any(|name| path == Path::new(name)) {
        let mut out = BufWriter::new(io::stdout().lock());
        return fill(&mut out).and_then(|()| out.flush()).map_err(|error| told(&error));
    }
    if STDERR.iter().any(|name| path == Path::new(name)) {
        let mut out = BufWriter::new(io::stderr().lock());
        return fill(&mut out).and_then(|()| out.flush());
    }
    if is_system(path) {
        let mut out = BufWriter::new(OpenOptions::new().append(true).open(path)?);
        return fill(&mut out).and_then(|()| out.flush());
    }
    match fs::metadata(path) {
        // Such as a pipe, or /dev/null.
        Ok(found) if !found.is_file() => {
            let mut out = BufWriter::new(OpenOptions::new().write(true).open(path)?);
            fill(&mut out).and_then(|()| out.flush())
        }
        _ => replace(path, fill),
    }
}

/// Reads a whole file, or standard input.
///
/// # Errors
/// The system's error, or that the file is too large.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("has more than {LARGEST} bytes")));
    }
    Ok(bytes)
}

/// Whether every user of this machine may read a file.
fn is_exposed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o004 != 0)
}

/// The same, but true only once per file in this process: a secret is read again for every connection.
pub fn is_newly_exposed(path: &Path) -> bool {
    static KNOWN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let new = |path: &Path| KNOWN.lock().insert(path.to_owned());
    is_exposed(path) && new(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_its_owners_alone() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("a/b");
        folder(&inner).unwrap();
        create(&inner.join("new")).unwrap();
        fs::write(inner.join("old"), "old").unwrap();
        replace(&inner.join("old"), |out| out.write_all(b"new")).unwrap();
        own(&inner.join("own")).unwrap();
        assert_eq!((mode(&inner), mode(inner.parent().unwrap())), (FOLDER, FOLDER));
        for name in ["new", "old", "own"] {
            assert_eq!(mode(&inner.join(name)), FILE, "{name}");
        }
        assert_eq!(fs::read(inner.join("old")).unwrap(), b"new");
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let place = tempfile::tempdir().unwrap();
        let (victim, link) = (place.path().join("victim"), place.path().join("link"));
        fs::write(&victim, "mine").unwrap();
        symlink(&victim, &link).unwrap();
        create(&link).unwrap_err();
        assert!(own(&link).unwrap_err().to_string().contains("is a link"));
        replace(&link, |out| out.write_all(b"new")).unwrap();
        fs::hard_link(&victim, place.path().join("second")).unwrap();
        assert!(own(&place.path().join("second")).unwrap_err().to_string().contains("several names"));
        assert_eq!((fs::read(&victim).unwrap(), fs::read(&link).unwrap()), (b"mine".into(), b"new".into()));
    }

    #[test]
    fn what_somebody_has_open_is_appended_to() {
        use std::os::fd::AsRawFd as _;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("open");
        fs::write(&path, "before\n").unwrap();
        let open = OpenOptions::new().append(true).open(&path).unwrap();
        let fd = open.as_raw_fd();
        let names = [
            format!("/dev/fd/{fd}"),
            format!("/dev/../dev/fd/{fd}"),
            format!("/proc/self/fd/{fd}"),
            format!("/proc/{}/fd/{fd}", std::process::id()),
        ];
        for name in &names {
            write(Path::new(name), |out| writeln!(out, "{name}")).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("before\n{}\n", names.join("\n")));
    }

    #[test]
    fn places_of_devices_and_processes_are_known_by_their_folder() {
        for path in ["/dev/stderr", "/dev/fd/3", "/dev/null", "/proc/self/fd/1", "/dev/../dev/stderr"] {
            assert!(is_system(Path::new(path)), "{path}");
        }
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("link");
        symlink("/dev/null", &link).unwrap();
        for path in ["file", "/", "/dev/shm/file", "/devices", link.to_str().unwrap()] {
            assert!(!is_system(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_written_where_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("mounted");
        for kind in [ErrorKind::ResourceBusy, ErrorKind::CrossesDevices, ErrorKind::PermissionDenied] {
            fs::write(&path, "what was there, and is longer").unwrap();
            let before = fs::metadata(&path).unwrap().ino();
            let mut file = tempfile::NamedTempFile::new_in(place.path()).unwrap();
            file.write_all(b"new").unwrap();
            let written = settle(Err(PersistError { error: kind.into(), file }), &path);
            assert_eq!(written.is_ok(), kind != ErrorKind::PermissionDenied, "{kind}");
            assert_eq!(fs::read(&path).unwrap() == b"new", written.is_ok(), "{kind}");
            assert_eq!(fs::metadata(&path).unwrap().ino(), before, "{kind}");
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "{kind}");
        }
    }

    #[test]
    fn a_file_that_could_not_be_filled_is_as_it_was() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        fs::write(&path, "before").unwrap();
        write(&path, |_| Err(io::Error::other("no more"))).unwrap_err();
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read_dir(place.path()).unwrap().count()),
            (b"before".into(), 1)
        );
    }
}
