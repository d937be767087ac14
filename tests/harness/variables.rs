//! Environment variables of a program: set but empty, which counts as not set; by their old names; and known to the
//! other program. Shared by the tests of both programs.

use clap::Command;

use crate::harness::command::{program, run};

/// Additional arguments that make a command exit at once: two sets, as a flag overrides its own variable.
pub type Ways = [Vec<&'static str>; 2];

/// The commands below this one that can be run, by name.
fn leaves<'a>(command: &'a Command, names: &[&'a str], found: &mut Vec<(Vec<&'a str>, &'a Command)>) {
    if !command.is_subcommand_required_set() {
        found.push((names.to_vec(), command));
    }
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        leaves(sub, &[names, &[sub.get_name()]].concat(), found);
    }
}

/// Runs every command with all of its variables set but empty. Rejected arguments exit with 2.
pub fn emptied(path: &str, mut command: Command, ways: impl Fn(&[&str]) -> Ways) -> usize {
    command.build();
    let (mut found, mut variables) = (Vec::new(), 0);
    leaves(&command, &[], &mut found);
    for (names, command) in found {
        let named: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_env).collect();
        variables = variables.max(named.len());
        for way in ways(&names) {
            let mut child = program(path, &[&names, way.as_slice()].concat());
            child.envs(named.iter().map(|name| (name, "")));
            let ended = run(&mut child);
            let read = matches!(ended.code, Some(0 | 1)) && !ended.err.contains("in use");
            assert!(read, "{names:?} {way:?}: {}", ended.err);
        }
    }
    variables
}

/// Expects that a variable's old name is read with a warning, and that two different values are rejected. `ports` are
/// the arguments for free ports.
pub fn reads_an_old_name_and_refuses_two_values(path: &str, ports: &[&str]) {
    let run = |set: &[(&str, &str)]| {
        let mut command = program(path, &[&["serve", "--nats-creds=/nowhere/creds"], ports].concat());
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
    assert!(
        two.code == Some(2) && two.err.contains("GW_STREAM_REPLICAS and its old name STREAM_REPLICAS"),
        "{}",
        two.err
    );
    let same = run(&[("STREAM_REPLICAS", "3"), ("GW_STREAM_REPLICAS", "3")]);
    assert!(same.code == Some(1) && !same.err.contains("old name"), "{}", same.err);
}

/// Expects that every variable of this program is known to all programs.
pub fn all_are_known(command: &Command) {
    fn all(command: &Command, found: &mut Vec<String>) {
        let named = command.get_arguments().filter_map(clap::Arg::get_env);
        found.extend(named.map(|name| name.to_string_lossy().into_owned()));
        command.get_subcommands().for_each(|sub| all(sub, found));
    }
    let mut found = Vec::new();
    all(command, &mut found);
    let own = found.iter().filter(|name| name.starts_with("GW_"));
    let missing: Vec<_> = own.filter(|name| !cli::variables::is_ours(name)).collect();
    assert!(missing.is_empty(), "add {missing:?} to cli::variables");
}
