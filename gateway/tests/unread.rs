//! Commands whose output is not read, or that goes to a full disk or a closed stream: output never affects what is
//! done.

use std::process::Command;

use order_streams::{ALL, ORDERS};

use crate::harness::command::{Ended, Out, run, with};
use crate::system::{System, mode};

/// Combinations in which output is not read.
const UNREAD: [(Out, Out); 4] = [
    (Out::Unread, Out::Unread),
    (Out::Full, Out::Full),
    (Out::Closed, Out::Closed),
    (Out::Unread, Out::Read),
];

fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command with these streams, and expects this exit code.
#[track_caller]
fn ends(command: &mut Command, (out, err): (Out, Out), code: i32) -> Ended {
    // Logs go to the same streams.
    let ended = with(command.env("RUST_LOG", "debug"), out, err);
    assert_eq!(ended.code, Some(code), "{command:?} {out:?} {err:?}: {}", ended.err);
    ended
}

#[test]
fn a_backup_and_a_restore_that_nobody_listens_to_are_whole() {
    let from = System::with_orders(3);
    for (number, way) in UNREAD.into_iter().enumerate() {
        let folder = from.path(&format!("backup-{number}"));
        ends(&mut from.gateway(&["backup", text(&folder)]), way, 0);
        assert!(folder.join("SHA256SUMS").exists(), "{way:?}");
        let to = System::bare();
        ends(&mut to.gateway(&["restore", text(&folder)]), way, 0);
        assert!(ALL.iter().all(|stream| to.last(stream).is_some()), "{way:?}");
        assert_eq!(to.last(ORDERS), from.last(ORDERS), "{way:?}");
    }
}

#[test]
fn everything_is_mended_and_replayed_although_nobody_listens() {
    for way in UNREAD {
        let system = System::with_orders(4);
        // Without --mend it only reports, and there are differences.
        let found = run(&mut system.gateway(&["reconcile"]));
        assert!(found.code == Some(1) && found.out.matches("order_without_stock").count() == 4, "{found:?}");
        ends(&mut system.gateway(&["reconcile", "--mend", "--patience=5"]), way, 0);
        let clean = run(&mut system.gateway(&["reconcile"]));
        assert_eq!(clean.code, Some(0), "{way:?}: {clean:?}");
        ends(&mut system.gateway(&["dead-letters", "replay", "--all"]), way, 0);
        assert_eq!(system.letters(), 0, "{way:?}");
    }
}

#[test]
fn what_fails_ends_with_1_whoever_listens() {
    let system = System::with_orders(1);
    for way in UNREAD {
        ends(&mut system.gateway(&["dead-letters", "replay", "--all"]), way, 1);
        ends(&mut system.gateway(&["reconcile"]), way, 1);
        ends(&mut system.gateway(&["restore", "/nowhere"]), way, 1);
        ends(system.gateway(&["serve"]).env("GW_MAX_STREAMS", "many"), way, 2);
    }
}

#[test]
fn streams_are_made_although_nobody_listens() {
    for way in UNREAD {
        let system = System::bare();
        ends(&mut system.gateway(&["provision"]), way, 0);
        assert!(ALL.iter().all(|stream| system.last(stream).is_some()), "{way:?}");
    }
}

#[test]
fn a_list_that_cannot_be_written_is_an_error_and_one_that_has_been_read_enough_is_none() {
    let system = System::with_orders(1);
    for arguments in [["dead-letters", "list", "--json"].as_slice(), &["dead-letters", "show", "1"]] {
        ends(&mut system.gateway(arguments), (Out::Unread, Out::Read), 0);
        let full = ends(&mut system.gateway(arguments), (Out::Full, Out::Read), 1);
        assert!(full.err.contains("cannot write to standard output"), "{}", full.err);
    }
}

#[test]
fn a_key_that_nobody_saw_is_not_said_to_be_made() {
    let system = System::bare();
    let new = ["keys", "new", "ann", "--scopes=orders.read"];
    assert_eq!(run(&mut system.gateway(&new)).out.lines().count(), 2);
    for out in [Out::Unread, Out::Full] {
        ends(&mut system.gateway(&new), (out, Out::Read), 1);
    }
}

#[test]
fn standard_output_has_data_alone() {
    let system = System::with_orders(1);
    let folder = system.path("backup");
    let backup = ends(&mut system.gateway(&["backup", text(&folder)]), (Out::Read, Out::Read), 0);
    assert!(backup.out.is_empty() && backup.err.contains("ORDERS: copied"), "{backup:?}");
    for (arguments, code) in
        [(["dead-letters", "list", "--json"].as_slice(), 0), (&["dead-letters", "show", "1", "--json"], 0)]
            .into_iter()
            .chain([(["reconcile", "--json"].as_slice(), 1)])
    {
        let ended = ends(&mut system.gateway(arguments), (Out::Read, Out::Read), code);
        let objects = ended.out.lines().map(serde_json::from_str::<serde_json::Value>);
        assert!(objects.clone().count() > 0 && objects.into_iter().all(|line| line.is_ok()), "{}", ended.out);
    }
}

#[test]
fn a_backup_is_its_owners_alone_whatever_the_umask() {
    let system = System::with_orders(1);
    let folder = system.path("backups/monday");
    let script = format!("umask 0; exec {} backup {}", crate::GATEWAY, text(&folder));
    let mut command = Command::new("/bin/sh");
    let ended = run(command.args(["-c", &script]).env_clear().env("NATS_URL", system.nats.url()));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!((mode(&folder), mode(folder.parent().unwrap())), (0o700, 0o700));
    for stream in ALL {
        assert_eq!(mode(&folder.join(stream)), 0o700);
        for file in std::fs::read_dir(folder.join(stream)).unwrap() {
            assert_eq!(mode(&file.unwrap().path()), 0o600);
        }
    }
    assert_eq!(mode(&folder.join("SHA256SUMS")), 0o600);
}
