//! Encrypted backups: only the holder of a key can restore one, and errors in one are reported before anything is
//! created.

use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use order_streams::{ALL, ORDERS};

use crate::harness::command::{Ended, run};
use crate::system::System;

/// The file of a private key, and its public key.
fn key(system: &System, name: &str) -> (PathBuf, String) {
    let identity = Identity::generate();
    let text = format!("# created: today\n{}\n", identity.to_string().expose_secret());
    (system.file(name, &text), identity.to_public().to_string())
}

fn restore(system: &System, folder: &Path, arguments: &[&str]) -> Ended {
    run(system.gateway(&["restore"]).arg(folder).args(arguments))
}

/// The one file of a stream's messages.
fn messages(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder.join(ORDERS)).unwrap().map(|file| file.unwrap().path());
    let mut sealed = files.filter(|path| path.extension().is_some_and(|end| end == "age"));
    sealed.next().unwrap()
}

/// Changes the bytes of the file, and its digest accordingly.
fn change(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = messages(folder);
    let mut bytes = std::fs::read(&path).unwrap();
    let before = nats::backup::digest(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let sums = sums.replace(&before, &nats::backup::digest(&path).unwrap());
    std::fs::write(folder.join("SHA256SUMS"), sums).unwrap();
}

#[test]
fn a_backup_that_is_encrypted_is_restored_by_each_of_its_recipients_alone() {
    let from = System::with_orders(3);
    let ((ours, our_key), (theirs, their_key), (other, _)) =
        (key(&from, "ours"), key(&from, "theirs"), key(&from, "other"));
    let (folder, list) = (from.path("backup"), from.file("list", &format!("# who may\n{their_key}\n")));
    let mut backup = from.gateway(&["backup", "--recipient", &our_key, "--recipients-file"]);
    let ended = run(backup.arg(&list).arg(&folder));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(std::fs::read(messages(&folder)).unwrap().starts_with(b"age-encryption.org/v1"));
    let to = System::bare();
    for (arguments, word) in [
        (vec![], "decrypt it with --identity FILE"),
        (vec!["--identity", other.to_str().unwrap()], "not encrypted for any of the identities"),
        (vec!["--identity", list.to_str().unwrap()], "is not an age identity"),
    ] {
        let refused = restore(&to, &folder, &arguments);
        assert!(refused.code == Some(1) && refused.err.contains(word), "{arguments:?}: {}", refused.err);
        assert!(!refused.err.contains("AGE-SECRET"), "a key was shown");
        assert!(ALL.iter().all(|stream| to.last(stream).is_none()), "{arguments:?}");
    }
    for identity in [&ours, &theirs] {
        let to = System::bare();
        let restored = restore(&to, &folder, &["--identity", identity.to_str().unwrap()]);
        assert_eq!(restored.code, Some(0), "{}", restored.err);
        assert_eq!(to.last(ORDERS), from.last(ORDERS));
    }
}

#[test]
fn of_an_encrypted_backup_that_is_damaged_nothing_is_restored() {
    let (from, to) = (System::with_orders(3), System::bare());
    let (identity, recipient) = key(&from, "key");
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 3] = [
        ("cut", |bytes| bytes.truncate(bytes.len() - 7)),
        ("changed", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("no age file", |bytes| bytes[3] = b'x'),
    ];
    for (name, damage) in damages {
        let folder = from.path(name);
        let ended = run(from.gateway(&["backup", "--recipient", &recipient]).arg(&folder));
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        change(&folder, damage);
        let refused = restore(&to, &folder, &["--identity", identity.to_str().unwrap()]);
        assert!(refused.code == Some(1) && refused.err.contains("damaged"), "{name}: {}", refused.err);
        assert!(refused.err.contains("stream."), "the file is named: {}", refused.err);
        assert!(ALL.iter().all(|stream| to.last(stream).is_none()), "{name}");
    }
    // An unencrypted backup is not accepted in place of an encrypted one.
    let plain = from.path("plain");
    assert_eq!(run(from.gateway(&["backup"]).arg(&plain)).code, Some(0));
    let refused = restore(&to, &plain, &["--identity", identity.to_str().unwrap()]);
    assert!(refused.code == Some(1) && refused.err.contains("is not encrypted"), "{}", refused.err);
    let refused = run(from.gateway(&["backup", "--recipient", "age1nobody"]).arg(from.path("nowhere")));
    assert!(refused.code == Some(1) && refused.err.contains("--recipient"), "{}", refused.err);
    assert!(!from.path("nowhere").exists());
}
