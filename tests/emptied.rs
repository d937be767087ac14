//! Every environment variable of a program, set and empty: it counts as not set. Shared by the tests of both programs.

use clap::Command;

use crate::program::{program, run};

/// What a command needs besides, and what ends it at once: two ways, as a flag hides its own variable.
pub type Ways = [Vec<&'static str>; 2];

/// The commands below this one that do something, by their names.
fn leaves<'a>(command: &'a Command, names: &[&'a str], found: &mut Vec<(Vec<&'a str>, &'a Command)>) {
    if !command.is_subcommand_required_set() {
        found.push((names.to_vec(), command));
    }
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        leaves(sub, &[names, &[sub.get_name()]].concat(), found);
    }
}

/// Runs every command with all of its variables set and empty. Arguments that are refused end with 2.
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
            assert!(matches!(ended.code, Some(0 | 1)), "{names:?} {way:?}: {}", ended.err);
        }
    }
    variables
}
