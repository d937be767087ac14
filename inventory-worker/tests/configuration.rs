//! The configuration as a whole, and the output of `config check`.

use crate::WORKER;
use crate::harness::command::{Ended, program, run};

fn check(more: &[&str], set: &[(&str, &str)]) -> Ended {
    run(program(WORKER, &[&["config", "check"], more].concat()).envs(set.iter().copied()))
}

#[test]
fn all_problems_are_told_at_once() {
    assert_eq!(check(&[], &[]).code, Some(0));
    let set = [
        ("GW_ID_HORIZON", "0"),
        ("GW_BATCH", "many"),
        ("GW_EXPIRY_INTERVAL", "1ms"),
        ("NATS_CA", "/nowhere/ca.pem"),
        ("GW_NATS_TOKEN_FILE", "/nowhere/token"),
        ("GW_SNAPSHOT_EVRY", "9"),
    ];
    let ended = check(&[], &set);
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    for (name, _) in set {
        let told = |line: &str| line.starts_with("- ") && line.contains(name);
        assert!(ended.err.lines().any(told), "{name}: {}", ended.err);
    }
    assert!(
        ended.err.contains("executed again") && ended.err.contains("GW_SNAPSHOT_EVERY?"),
        "{}",
        ended.err
    );
}

#[test]
fn the_file_is_read_by_every_command_that_takes_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.toml");
    std::fs::write(&path, "id_horizon = '48h'\nnats_creds = '/nowhere/creds'\nreservation_ttl = 90\n")
        .unwrap();
    let path = path.to_str().unwrap();
    let ended = check(&["--print", "--config", path], &[]);
    for line in
        ["id_horizon = \"48h\"  # file", "reservation_ttl = \"1m 30s\"  # file", "batch = 512  # default"]
    {
        assert!(ended.out.contains(line), "{line}\n{}", ended.out);
    }
    let export = run(program(WORKER, &["stock", "export", "/dev/null"]).env("GW_CONFIG", path));
    assert!(export.code == Some(1) && export.err.contains("/nowhere/creds"), "{}", export.err);
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    for arguments in [&["completions", "bash"][..], &["man"]] {
        let ended = run(&mut program(WORKER, arguments));
        assert!(ended.code == Some(0) && ended.out.contains("inventory-worker"), "{}", ended.err);
    }
}
