//! Folders in which somebody else has left files.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use local_nats::{Options, Server};

use crate::owner::{hold, on_a_new_machine};

fn at(folder: &Path) -> Options {
    Options { data_dir: Some(folder.to_path_buf()), ..Options::default() }
}

/// A program that leaves a mark if it is run.
fn trap(file: &Path, mark: &Path) {
    let script = format!("#!/bin/sh\necho run >'{}'\nexit 1\n", mark.display());
    fs::write(file, script).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn nothing_of_the_working_folder_is_run() {
    let (place, caches) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mark = place.path().join("mark");
    for module in ["pip.py", "zipfile.py", "sitecustomize.py"] {
        let text = format!("open({:?}, 'w').write('run')\nraise SystemExit(1)\n", mark.to_str().unwrap());
        fs::write(place.path().join(module), text).unwrap();
    }
    ["python3", "go", "nats-server", "sleep"].iter().for_each(|name| trap(&place.path().join(name), &mark));
    let mut command = hold(&place.path().join("data"));
    on_a_new_machine(&mut command, caches.path());
    let value = |name: &str| {
        command.get_envs().find_map(|(found, value)| (found == name).then_some(value?.to_owned())).unwrap()
    };
    let mut path = std::ffi::OsString::from(".::");
    path.push(value("PATH"));
    command.env("PATH", path).env("PYTHONPATH", place.path()).current_dir(place.path());
    // Whether a server can be installed here does not matter.
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!mark.exists(), "something was run");
}

#[test]
fn links_that_stand_where_our_files_are_to_be_are_not_followed() {
    let other = tempfile::tempdir().unwrap();
    let victim = other.path().join("victim");
    for (name, replaced) in
        [("nats-server.pid", false), ("nats-server.log", false), ("nats-server.conf", true)]
    {
        let place = tempfile::tempdir().unwrap();
        fs::write(&victim, "mine").unwrap();
        symlink(&victim, place.path().join(name)).unwrap();
        match Server::with(at(place.path())) {
            Ok(_) => assert!(replaced, "{name}"),
            Err(error) => assert!(!replaced && error.to_string().contains("is a link"), "{name}: {error}"),
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine", "{name}");
    }
}

#[test]
fn what_a_server_stores_is_its_owners_alone() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("old");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let _server = Server::with(at(&folder)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for name in ["nats-server.pid", "nats-server.log", "nats-server.conf"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
}
