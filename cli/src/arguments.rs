//! The command line, and the environment variables that stand for its flags: one that is set and empty is not set, and
//! a value that is refused is named by its flag and its variable. Must never know what they mean.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgMatches, Command, Parser};

use crate::variables::{Environment, Names};
use crate::{note, url};

/// What was asked for, and what to say of it as soon as it is known how things are said.
#[derive(Debug)]
pub struct Parsed<T> {
    /// What was asked for.
    pub cli: T,
    /// What should be mended, although it works for now.
    pub warnings: Vec<String>,
}

/// Reads the arguments of this process, and prints what should be mended.
///
/// # Errors
/// The code to end with, after help was printed or what is wrong was said.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    let Parsed { cli, warnings } = read()?;
    warnings.iter().for_each(|warning| note!("warning: {warning}"));
    Ok(cli)
}

/// Reads the arguments of this process.
///
/// # Errors
/// The code to end with, after help was printed or what is wrong was said.
pub fn read<T: Parser>() -> Result<Parsed<T>, ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut warnings: Vec<String> = secrets(&arguments)
        .iter()
        .map(|flag| {
            format!(
                "{flag} has a user or a password in its URL, and arguments are everybody's to read: say it by an \
                 environment variable or a file"
            )
        })
        .collect();
    let environment = |name: &str| Some(std::env::var_os(name)?.to_string_lossy().into_owned());
    match parse_from::<T>(arguments, &environment) {
        Ok(parsed) => {
            warnings.extend(parsed.warnings);
            Ok(Parsed { cli: parsed.cli, warnings })
        }
        Err(error) => {
            warnings.iter().for_each(|warning| note!("warning: {warning}"));
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            Err(match error.print() {
                // Help that nobody can read is no success.
                Err(failed) if code == 0 && failed.kind() != ErrorKind::BrokenPipe => ExitCode::FAILURE,
                _ => ExitCode::from(code),
            })
        }
    }
}

fn parse_from<T: Parser>(
    arguments: Vec<OsString>,
    environment: Environment<'_>,
) -> Result<Parsed<T>, clap::Error> {
    let names = Names::of(environment);
    let mut command = names.apply(T::command(), environment);
    let known = variables(command.clone());
    let mut matches = command
        .try_get_matches_from_mut(arguments)
        .map_err(|error| named(error.format(&mut command), &known))?;
    // After help, which is for whoever has to mend it.
    if !names.faults.is_empty() {
        return Err(command.error(clap::error::ErrorKind::ArgumentConflict, names.faults.join("\n       ")));
    }
    let read = names_read(&command, &matches);
    let cli =
        T::from_arg_matches_mut(&mut matches).map_err(|error| named(error.format(&mut command), &known))?;
    Ok(Parsed { cli, warnings: names.warnings(|name| read.contains(name)) })
}

/// The variables of the command that was asked for.
fn names_read(command: &Command, matches: &ArgMatches) -> BTreeSet<String> {
    match matches.subcommand().and_then(|(name, below)| Some((command.find_subcommand(name)?, below))) {
        Some((sub, below)) => names_read(sub, below),
        None => {
            let names = command.get_arguments().filter_map(Arg::get_env);
            names.map(|name| name.to_string_lossy().into_owned()).collect()
        }
    }
}

/// Flags, as errors name them, and their variables.
fn variables(mut command: Command) -> HashMap<String, String> {
    fn all(command: &Command, found: &mut HashMap<String, String>) {
        let variable = |arg: &Arg| arg.get_env().map(|name| name.to_string_lossy().into_owned());
        found.extend(command.get_arguments().filter_map(|arg| Some((arg.to_string(), variable(arg)?))));
        command.get_subcommands().for_each(|sub| all(sub, found));
    }
    let mut found = HashMap::new();
    // Only then it is known how an argument is shown.
    command.build();
    all(&command, &mut found);
    found
}

/// The error with the variable beside each flag, and without secrets in the value.
fn named(mut error: clap::Error, variables: &HashMap<String, String>) -> clap::Error {
    let both = |flag: &String| match variables.get(flag) {
        Some(variable) => format!("{flag} ({variable})"),
        None => flag.clone(),
    };
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        let with = match error.get(kind) {
            Some(ContextValue::String(flag)) => ContextValue::String(both(flag)),
            Some(ContextValue::Strings(flags)) => ContextValue::Strings(flags.iter().map(both).collect()),
            _ => continue,
        };
        error.insert(kind, with);
    }
    for kind in [ContextKind::InvalidValue, ContextKind::ActualNumValues] {
        if let Some(ContextValue::String(value)) = error.get(kind) {
            let clean = ContextValue::String(url::cleaned(value));
            error.insert(kind, clean);
        }
    }
    error
}

/// Flags whose value has user information in a URL.
fn secrets(arguments: &[OsString]) -> Vec<String> {
    let mut found = Vec::new();
    let mut flag = "an argument".to_owned();
    for argument in arguments.iter().skip(1).map(|argument| argument.to_string_lossy()) {
        let value = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                flag = name.to_owned();
                value
            }
            _ if argument.starts_with("--") => {
                flag = argument.into_owned();
                continue;
            }
            _ => &argument,
        };
        if value.contains("://") && url::user_information(value).is_some() {
            found.push(flag.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[arg(long, env = "CLI_TEST_FILE", requires = "count")]
        file: Option<PathBuf>,
        #[arg(long, env = "CLI_TEST_COUNT", value_name = "N")]
        count: Option<u16>,
        #[arg(long, env = "CLI_TEST_URL", value_parser = refused)]
        url: Option<String>,
    }

    fn refused(_: &str) -> Result<String, String> {
        Err("must be another".to_owned())
    }

    fn error(arguments: &[&str]) -> String {
        let arguments = ["cli"].iter().chain(arguments).map(OsString::from).collect();
        parse_from::<Cli>(arguments, &|_| None).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_named_by_flag_and_variable() {
        let bad = error(&["--count=many"]);
        assert!(bad.contains("--count <N>") && bad.contains("CLI_TEST_COUNT"), "{bad}");
        let missing = error(&["--file=x"]);
        assert!(missing.contains("CLI_TEST_COUNT"), "{missing}");
    }

    #[test]
    fn no_error_shows_the_password_of_a_url() {
        let bad = error(&["--url=https://ann:hush@one/"]);
        assert!(bad.contains("https://one/") && !bad.contains("hush"), "{bad}");
    }

    #[test]
    fn a_password_among_the_arguments_is_noticed() {
        let noticed = |arguments: &[&str]| {
            let all: Vec<_> = ["gateway"].iter().chain(arguments).map(OsString::from).collect();
            secrets(&all)
        };
        assert_eq!(noticed(&["--nats-url", "nats://ann:hush@one"]), ["--nats-url"]);
        assert_eq!(noticed(&["--nats-url=nats://one,nats://hush@two"]), ["--nats-url"]);
        assert!(noticed(&["--nats-url", "nats://one", "--nats-user=ann@example.com"]).is_empty());
    }
}
