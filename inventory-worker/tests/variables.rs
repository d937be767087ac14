//! Environment variables that stand for flags.

use clap::CommandFactory as _;
use inventory_worker::config::Cli;

use crate::WORKER;
use crate::emptied::{Ways, emptied};
use crate::program::{program, run};
use crate::versions;

const CREDENTIALS: &str = "--nats-creds=/nowhere/creds";
const PREFIX: &str = "--nats-inbox-prefix=*";

fn ways(names: &[&str]) -> Ways {
    let more: &[&str] = match names {
        [] | ["serve"] | ["config", "check"] => &[],
        ["man"] => return [vec![], vec![]],
        ["completions"] => return [vec!["bash"], vec!["zsh"]],
        ["stock", "import"] => &["/dev/stdin"],
        ["stock", "export"] => &["/dev/null"],
        ["stock", "remove"] => &["lamp"],
        // Nobody listens there.
        ["healthcheck"] => return [vec!["--addr=127.0.0.1:1"], vec!["--addr=[::1]:1"]],
        other => panic!("say how {other:?} is ended right after its arguments were read"),
    };
    [[more, &[CREDENTIALS]].concat(), [more, &[PREFIX]].concat()]
}

#[test]
fn a_variable_that_is_set_and_empty_is_not_set() {
    assert!(emptied(WORKER, Cli::command(), ways) > 20);
}

#[test]
fn a_bad_value_is_named_by_its_flag_and_its_variable() {
    for (variable, flag) in [
        ("GW_HEALTH_ADDR", "--health-addr"),
        ("GW_BATCH", "--batch"),
        ("GW_PROVISION", "--provision"),
        ("GW_STREAM_REPLICAS", "--replicas"),
        ("GW_NATS_CONNECT_TIMEOUT", "--nats-connect-timeout"),
    ] {
        let ended = run(program(WORKER, &["serve"]).env(variable, "maybe not"));
        let named = ended.err.contains(variable) && ended.err.contains(flag);
        assert!(ended.code == Some(2) && named && ended.err.contains("maybe not"), "{}", ended.err);
    }
}

#[test]
fn the_old_name_of_a_variable_is_read_and_warned_of_and_two_values_are_refused() {
    let run = |set: &[(&str, &str)]| {
        let mut command = program(WORKER, &["serve", "--nats-creds=/nowhere/creds"]);
        run(command.envs(set.iter().copied()))
    };
    let old = run(&[("STREAM_REPLICAS", "3")]);
    let told = old.err.contains("STREAM_REPLICAS is the old name of GW_STREAM_REPLICAS");
    assert!(old.code == Some(1) && told && old.err.contains("/nowhere/creds"), "{}", old.err);
    let bad = run(&[("STREAM_REPLICAS", "2")]);
    assert!(
        bad.code == Some(2) && bad.err.contains("--replicas <") && bad.err.contains("(STREAM_REPLICAS)"),
        "{}",
        bad.err
    );
    let two = run(&[("STREAM_REPLICAS", "3"), ("GW_STREAM_REPLICAS", "1")]);
    assert!(two.code == Some(2) && two.err.contains("GW_STREAM_REPLICAS and STREAM_REPLICAS"), "{}", two.err);
    let same = run(&[("STREAM_REPLICAS", "3"), ("GW_STREAM_REPLICAS", "3")]);
    assert!(same.code == Some(1) && !same.err.contains("old name"), "{}", same.err);
}

#[test]
fn the_version_has_the_commit() {
    versions::says_its_version_and_commit(WORKER, "inventory-worker");
}

#[test]
fn each_program_knows_the_variables_of_the_other() {
    fn all(command: &clap::Command, found: &mut Vec<String>) {
        let named = command.get_arguments().filter_map(clap::Arg::get_env);
        found.extend(named.map(|name| name.to_string_lossy().into_owned()));
        command.get_subcommands().for_each(|sub| all(sub, found));
    }
    let mut found = Vec::new();
    all(&Cli::command(), &mut found);
    let own = found.iter().filter(|name| name.starts_with(cli::variables::PREFIX));
    let missing: Vec<_> = own.filter(|name| !cli::variables::is_ours(name)).collect();
    assert!(missing.is_empty(), "add {missing:?} to cli::variables");
}
