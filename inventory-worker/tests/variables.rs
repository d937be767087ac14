//! Environment variables that stand for flags.

use clap::CommandFactory as _;
use inventory_worker::config::Cli;

use crate::WORKER;
use crate::harness::command::{program, run};
use crate::harness::variables::{Ways, all_are_known, emptied, reads_an_old_name_and_refuses_two_values};
use crate::harness::version;

const CREDENTIALS: &str = "--nats-creds=/nowhere/creds";
const PREFIX: &str = "--nats-inbox-prefix=*";
/// Any free ports.
const PORTS: [&str; 2] = ["--health-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0"];

fn ways(names: &[&str]) -> Ways {
    let more: &[&str] = match names {
        [] | ["serve"] => &PORTS,
        ["config", "check"] => &[],
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
    reads_an_old_name_and_refuses_two_values(WORKER, &PORTS);
}

#[test]
fn the_version_has_the_commit() {
    version::says_its_version_and_commit(WORKER, "inventory-worker");
}

#[test]
fn each_program_knows_the_variables_of_the_other() {
    all_are_known(&Cli::command());
}
