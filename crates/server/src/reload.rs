//! Files that are reloaded when they change: certificates, keys, lists of callers. The last valid version stays in use,
//! and its age is known. Must not depend on their contents.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ring::digest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::fresh::Fresh;
use crate::served::Current;

/// Interval between two checks. A check reads the files, because modification times are unreliable in a folder that
/// Kubernetes swaps.
const LOOK: Duration = Duration::from_secs(1);
/// A persistent error is logged again after this.
const AGAIN: Duration = Duration::from_secs(60);
/// Invalid lines that are listed in an error.
const SHOWN: usize = 20;
/// Maximum size of a file, in bytes.
const MOST: u64 = 1 << 20;

/// The contents of a file, wiped on drop.
pub(crate) type Contents = Zeroizing<Vec<u8>>;

/// The value parsed from some files.
pub(crate) struct Made<T> {
    pub(crate) value: T,
    /// Errors of the lines that were ignored.
    pub(crate) faults: Vec<String>,
    /// Whether the value is empty: a file that is just being written looks empty too.
    pub(crate) empty: bool,
}

/// Parses the contents of some files.
type Make<T> = Box<dyn Fn(&[Contents]) -> anyhow::Result<Made<T>> + Send + Sync>;

/// The result of the last check of the files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The version in force.
    Good,
    /// Possibly half written: it is taken if the next check finds the same.
    Doubtful,
    /// Invalid or unreadable.
    Bad,
}

/// A value that is reloaded from files.
pub(crate) struct Reload<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    make: Make<T>,
    latest: watch::Sender<Arc<T>>,
    /// The digest of the contents at the last check.
    seen: digest::Digest,
    found: Found,
    fresh: Fresh,
    /// When an error was last logged.
    told: Option<Instant>,
    /// What else the value depends on: it is made anew with another one.
    current: Option<Current>,
}

impl<T> From<T> for Made<T> {
    /// For files that are valid or invalid as a whole.
    fn from(value: T) -> Made<T> {
        Made { value, faults: Vec::new(), empty: false }
    }
}

impl<T: Send + Sync + 'static> Reload<T> {
    /// Reads the files for the first time, which fails on any error in them; `what` is their name in errors and logs.
    pub(crate) fn open<M: Into<Made<T>>>(
        what: &'static str,
        paths: Vec<PathBuf>,
        make: impl Fn(&[Contents]) -> anyhow::Result<M> + Send + Sync + 'static,
    ) -> anyhow::Result<Reload<T>> {
        let contents = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>();
        let contents = contents.with_context(|| what.to_owned())?;
        let make: Make<T> = Box::new(move |contents| make(contents).map(Into::into));
        let first = make(&contents).and_then(Made::whole);
        let first = first.with_context(|| format!("{what}: {}", shown(&paths)))?;
        let seen = digest_of(&contents, 0);
        let latest = watch::Sender::new(Arc::new(first));
        let fresh = Fresh::new(what, None);
        Ok(Reload { what, paths, make, latest, seen, found: Found::Good, fresh, told: None, current: None })
    }

    /// Sets the maximum age; `source` is its name in metrics.
    pub(crate) fn within(self, source: &'static str, limit: Option<Duration>) -> Reload<T> {
        Reload { fresh: Fresh::new(source, limit.map(|limit| limit + LOOK)), ..self }
    }

    /// The value is made with the catalog: it is made anew when that changes.
    pub(crate) fn depending_on(self, current: &Current) -> Reload<T> {
        Reload { current: Some(current.clone()), ..self }
    }

    /// The digest of everything that the value is made of.
    fn digest(&self, contents: &[Contents]) -> digest::Digest {
        digest_of(contents, self.current.as_ref().map_or(0, |current| current.look().number()))
    }

    /// Its name in errors and logs.
    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    /// Its freshness.
    pub(crate) fn fresh(&self) -> &Fresh {
        &self.fresh
    }

    /// The latest valid version.
    pub(crate) fn latest(&self) -> watch::Receiver<Arc<T>> {
        self.latest.subscribe()
    }

    /// Checks and reloads the files until it is dropped.
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
            Ok(contents) => self.digest(contents),
            Err(error) => digest::digest(&digest::SHA256, format!("{error:#}").as_bytes()),
        };
        let same = seen.as_ref() == self.seen.as_ref();
        self.seen = seen;
        if same && self.found == Found::Good {
            self.fresh.confirm();
            return;
        }
        let told = self.told.is_some_and(|told| told.elapsed() < AGAIN);
        if same && self.found == Found::Bad && told {
            return;
        }
        match read.and_then(|contents| (self.make)(&contents)) {
            Ok(made) if !same && (made.empty || !made.faults.is_empty()) => self.found = Found::Doubtful,
            Ok(made) => self.take(made),
            // Files that belong together may change one after the other: the next check may find a consistent set.
            Err(error) => {
                (self.found, self.told) = (Found::Bad, Some(Instant::now()));
                let (files, error) = (shown(&self.paths), format!("{error:#}"));
                let (age, over) = (self.fresh.age().as_secs(), self.fresh.over());
                if over {
                    tracing::error!(
                        files,
                        error,
                        age,
                        "cannot reload {} for too long: credentials that depend on it are rejected",
                        self.what
                    );
                } else {
                    tracing::warn!(
                        files,
                        error,
                        age,
                        "cannot reload {}: the previous version stays in use",
                        self.what
                    );
                }
            }
        }
    }

    fn take(&mut self, made: Made<T>) {
        let files = shown(&self.paths);
        self.fresh.faulty(made.faults.len());
        if made.faults.is_empty() {
            tracing::info!(files, "{} reloaded", self.what);
        } else {
            let lines = listed(&made.faults);
            tracing::error!(files, lines, "{} reloaded, without its invalid lines", self.what);
        }
        self.latest.send_replace(Arc::new(made.value));
        self.found = Found::Good;
        self.fresh.confirm();
    }
}

impl<T> Made<T> {
    /// The value of a file with one entry per line. If no line is valid, the value is empty, as for an empty file:
    /// entries that were removed must not stay in force because of errors in the rest.
    pub(crate) fn of_lines(value: T, good: usize, faults: Vec<String>) -> Made<T> {
        Made { value, empty: good == 0, faults }
    }

    /// The value, if there are no errors.
    fn whole(self) -> anyhow::Result<T> {
        if !self.faults.is_empty() {
            bail!("{}", listed(&self.faults));
        }
        Ok(self.value)
    }
}

/// The text of the first file. Binary contents are an error: they cannot be what the operator meant to write.
pub(crate) fn text(contents: &[Contents]) -> anyhow::Result<&[u8]> {
    let file = contents.first().map(|file| file.as_slice()).unwrap_or_default();
    if file.contains(&0) {
        bail!("the file is binary, not text");
    }
    Ok(file)
}

/// The first errors, and the number of further ones.
fn listed(faults: &[String]) -> String {
    let mut text = faults.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if faults.len() > SHOWN {
        text += &format!("; and {} more", faults.len() - SHOWN);
    }
    text
}

/// Reads a file that is not too large.
pub(crate) fn read(path: &Path) -> anyhow::Result<Contents> {
    let cannot = || format!("cannot read {}", path.display());
    let mut contents = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).with_context(cannot)?;
    file.take(MOST + 1).read_to_end(&mut contents).with_context(cannot)?;
    if contents.len() as u64 > MOST {
        bail!("{} is larger than {MOST} bytes", path.display());
    }
    Ok(contents)
}

/// The digest of these contents, beside the catalog of this number.
fn digest_of(contents: &[Contents], catalog: u64) -> digest::Digest {
    let mut all = digest::Context::new(&digest::SHA256);
    all.update(&catalog.to_be_bytes());
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

    /// A list of numbers, one per line.
    fn listing(contents: &[Contents]) -> anyhow::Result<Made<Vec<u8>>> {
        let lines = str::from_utf8(text(contents)?)?.lines().zip(1..);
        let read = |(line, number): (&str, usize)| line.parse().map_err(|_| format!("line {number}"));
        let (good, bad): (Vec<_>, Vec<_>) = lines.map(read).partition(Result::is_ok);
        let good: Vec<u8> = good.into_iter().flatten().collect();
        let faults = bad.into_iter().filter_map(Result::err).collect();
        Ok(Made::of_lines(good.clone(), good.len(), faults))
    }

    #[tokio::test(start_paused = true)]
    async fn good_lines_count_beside_bad_ones_and_nothing_once_it_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let open = || Reload::open("numbers", vec![path.clone()], listing);
        write("1\nsecret\n3\ny");
        let error = format!("{:#}", open().err().unwrap());
        assert!(error.contains("line 2; line 4") && !error.contains("secret"), "{error}");
        write("1\n2\n3");
        let reload = open().unwrap().within("numbers", Some(10 * LOOK));
        let (mut latest, fresh) = (reload.latest(), reload.fresh().clone());
        tokio::spawn(reload.keep());
        // Gone at the next check: it was just being written.
        write("1\n2\nx");
        sleep(LOOK + LOOK / 2).await;
        assert_eq!(**latest.borrow(), [1, 2, 3]);
        for (text, numbers, faults) in [
            ("1\nx\n3", &[1, 3][..], 1),
            ("", &[], 0),
            ("1\n2", &[1, 2], 0),
            // One was removed, and the other mistyped: neither is valid.
            ("x", &[], 1),
            ("2", &[2], 0),
        ] {
            write(text);
            latest.changed().await.unwrap();
            assert_eq!((&**latest.borrow_and_update(), fresh.faults()), (&numbers.to_vec(), faults));
        }
        // If the file is not text, the last list stays in use for a while.
        write("x\0y");
        sleep(5 * LOOK).await;
        assert!(!latest.has_changed().unwrap() && !fresh.over());
        until(|| fresh.over()).await;
        write("2");
        until(|| !fresh.over()).await;
        std::fs::remove_file(&path).unwrap();
        until(|| fresh.over()).await;
        assert!(!latest.has_changed().unwrap() || **latest.borrow() == [2]);
    }

    async fn until(holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                sleep(LOOK / 4).await;
            }
        };
        tokio::time::timeout(100 * LOOK, wait).await.expect("it comes to hold");
    }

    #[test]
    fn a_file_that_is_far_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        std::fs::File::create(&path).unwrap().set_len(MOST + 1).unwrap();
        assert!(read(&path).is_err());
    }
}
