//! Files that are read again when they change: certificates, keys, lists of who may call. What was read last and made
//! sense stays in use. Must never know what is in them.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ring::digest;
use tokio::sync::watch;
use tokio::time::sleep;
use zeroize::Zeroizing;

/// Between two looks. A look reads the files, as a folder that Kubernetes swaps has no new times that could be trusted.
const LOOK: Duration = Duration::from_secs(1);
/// No file of ours is larger.
const MOST: u64 = 1 << 20;

/// What a file held, wiped when it is dropped.
pub(crate) type Contents = Zeroizing<Vec<u8>>;

/// Makes something of the contents of some files.
type Make<T> = Box<dyn Fn(&[Contents]) -> anyhow::Result<T> + Send + Sync>;

/// Something made of files.
pub(crate) struct Reload<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    make: Make<T>,
    latest: watch::Sender<Arc<T>>,
    /// Of the contents that were looked at last.
    seen: digest::Digest,
}

impl<T: Send + Sync + 'static> Reload<T> {
    /// Reads the files for the first time; `what` is what they are called in errors and logs.
    pub(crate) fn open(
        what: &'static str,
        paths: Vec<PathBuf>,
        make: impl Fn(&[Contents]) -> anyhow::Result<T> + Send + Sync + 'static,
    ) -> anyhow::Result<Reload<T>> {
        let contents = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        let first = make(&contents).with_context(|| format!("{what}: {}", shown(&paths)))?;
        let seen = digest_of(&contents);
        Ok(Reload { what, paths, make: Box::new(make), latest: watch::Sender::new(Arc::new(first)), seen })
    }

    /// The latest that made sense.
    pub(crate) fn latest(&self) -> watch::Receiver<Arc<T>> {
        self.latest.subscribe()
    }

    /// Looks after the files until it is dropped.
    pub(crate) async fn keep(mut self) {
        loop {
            sleep(LOOK).await;
            let paths = self.paths.clone();
            // A file may be on a disk that hangs.
            let read = tokio::task::spawn_blocking(move || {
                paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()
            });
            let Ok(read) = read.await else { continue };
            self.look(read);
        }
    }

    fn look(&mut self, read: anyhow::Result<Vec<Contents>>) {
        let seen = match &read {
            Ok(contents) => digest_of(contents),
            Err(error) => digest::digest(&digest::SHA256, format!("{error:#}").as_bytes()),
        };
        if seen.as_ref() == self.seen.as_ref() {
            return;
        }
        self.seen = seen;
        match read.and_then(|contents| (self.make)(&contents)) {
            Ok(made) => {
                self.latest.send_replace(Arc::new(made));
                tracing::info!(files = shown(&self.paths), "{} read again", self.what);
            }
            // Files that belong together may change one after the other: the next look may find them whole.
            Err(error) => tracing::warn!(
                files = shown(&self.paths),
                error = format!("{error:#}"),
                "{} as before stay in use",
                self.what
            ),
        }
    }
}

/// A file of a size that makes sense.
pub(crate) fn read(path: &Path) -> anyhow::Result<Contents> {
    let cannot = || format!("cannot read {}", path.display());
    let mut contents = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).with_context(cannot)?;
    file.take(MOST + 1).read_to_end(&mut contents).with_context(cannot)?;
    if contents.len() as u64 > MOST {
        bail!("{} has more than {MOST} bytes", path.display());
    }
    Ok(contents)
}

fn digest_of(contents: &[Contents]) -> digest::Digest {
    let mut all = digest::Context::new(&digest::SHA256);
    for file in contents {
        all.update(&(file.len() as u64).to_be_bytes());
        all.update(file);
    }
    all.finish()
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::str;

    use super::*;

    fn numbers(contents: &[Contents]) -> anyhow::Result<Vec<u8>> {
        contents.iter().map(|file| Ok(str::from_utf8(file)?.trim().parse()?)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_makes_no_sense_changes_nothing_and_what_does_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        write(&one, "1");
        write(&two, "x");
        let open = || Reload::open("numbers", vec![one.clone(), two.clone()], numbers);
        let error = format!("{:#}", open().err().unwrap());
        assert!(error.contains("numbers") && error.contains("two"), "{error}");
        write(&two, "2");
        let reload = open().unwrap();
        let mut latest = reload.latest();
        tokio::spawn(reload.keep());
        for (path, text) in [(&one, "nonsense"), (&two, "")] {
            write(path, text);
            assert!(tokio::time::timeout(5 * LOOK, latest.changed()).await.is_err());
            assert_eq!(**latest.borrow(), [1, 2]);
        }
        std::fs::remove_file(&one).unwrap();
        write(&two, "4");
        assert!(tokio::time::timeout(5 * LOOK, latest.changed()).await.is_err());
        write(&one, "3");
        latest.changed().await.unwrap();
        assert_eq!(**latest.borrow_and_update(), [3, 4]);
    }

    #[test]
    fn a_file_that_is_far_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        std::fs::File::create(&path).unwrap().set_len(MOST + 1).unwrap();
        assert!(read(&path).is_err());
    }
}
