//! Finds the command that the arguments select, the options that it takes, and which of them are among the arguments.
//! Must not read the environment.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, Command};

/// The flag that names the configuration file.
const CONFIG: &str = "config";

/// An option that a command takes by a flag and by a variable.
pub(crate) struct Taken {
    pub(crate) arg: Arg,
    /// Its variable, by its current name.
    pub(crate) variable: String,
    /// Whether it is among the arguments.
    pub(crate) is_given: bool,
}

/// The selected command.
pub(crate) struct Leaf {
    pub(crate) path: Vec<String>,
    pub(crate) taken: Vec<Taken>,
    /// The value of `--config`.
    pub(crate) file: Option<PathBuf>,
}

impl Leaf {
    /// `None` if the arguments ask for help.
    pub(crate) fn find(plain: &Command, arguments: &[OsString]) -> Option<Leaf> {
        let mut command = edit(plain.clone(), &|arg| arg.env(Resettable::Reset)).ignore_errors(true);
        let matches = command.try_get_matches_from_mut(arguments).ok()?;
        let mut plain = plain.clone();
        plain.build();
        let (mut sub, mut below, mut path) = (&plain, &matches, Vec::new());
        while let Some((name, matches)) = below.subcommand() {
            (sub, below) = (sub.find_subcommand(name)?, matches);
            path.push(name.to_owned());
        }
        let taken = sub.get_arguments().filter_map(|arg| {
            let source = below.value_source(arg.get_id().as_str());
            let is_given = source == Some(ValueSource::CommandLine);
            Some(Taken { variable: variable(arg)?, arg: arg.clone(), is_given })
        });
        let file = below.try_get_one::<PathBuf>(CONFIG).ok().flatten().cloned();
        Some(Leaf { path, taken: taken.collect(), file })
    }

    /// Whether the command has settings besides those of the log.
    pub(crate) fn is_configured(&self) -> bool {
        self.taken.iter().any(|taken| !taken.arg.is_global_set())
    }
}

/// An argument's variable.
pub(crate) fn variable(arg: &Arg) -> Option<String> {
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}

/// The key of an argument in a file, derived from its flag.
pub(crate) fn key(arg: &Arg) -> Option<String> {
    Some(arg.get_long()?.replace('-', "_"))
}

/// Applies a change to each argument of a command and its subcommands.
pub(crate) fn edit(command: Command, change: &dyn Fn(Arg) -> Arg) -> Command {
    let command = command.mut_args(change);
    let subs: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    subs.into_iter().fold(command, |command, sub| command.mut_subcommand(sub, |sub| edit(sub, change)))
}

/// The flags, as errors name them, with their variables.
pub(crate) fn flags(mut command: Command) -> HashMap<String, String> {
    fn all(command: &Command, found: &mut HashMap<String, String>) {
        found.extend(command.get_arguments().filter_map(|arg| Some((arg.to_string(), variable(arg)?))));
        command.get_subcommands().for_each(|sub| all(sub, found));
    }
    let mut found = HashMap::new();
    // Only after building is it known how an argument is shown.
    command.build();
    all(&command, &mut found);
    found
}
