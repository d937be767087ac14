//! Environment variables that stand for flags.

use clap::CommandFactory as _;
use inventory_worker::config::Cli;

use crate::WORKER;
use crate::emptied::{Ways, emptied};
use crate::program::{program, run};

const CREDENTIALS: &str = "--nats-creds=/nowhere/creds";
const PREFIX: &str = "--nats-inbox-prefix=*";

fn ways(names: &[&str]) -> Ways {
    let more: &[&str] = match names {
        [] | ["serve"] => &[],
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
        ("HEALTH_ADDR", "--health-addr"),
        ("BATCH", "--batch"),
        ("PROVISION", "--provision"),
        ("STREAM_REPLICAS", "--replicas"),
        ("NATS_CONNECT_TIMEOUT_MS", "--nats-connect-timeout-ms"),
    ] {
        let ended = run(program(WORKER, &["serve"]).env(variable, "maybe not"));
        let named = ended.err.contains(variable) && ended.err.contains(flag);
        assert!(ended.code == Some(2) && named && ended.err.contains("maybe not"), "{}", ended.err);
    }
}
