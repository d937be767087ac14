//! The command line, and the environment variables that stand for its flags: one that is set and empty is not set, and
//! a value that is refused is named by its flag and its variable. Must never know what they mean.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, Parser};

use crate::{note, url};

/// Reads the arguments of this process.
///
/// # Errors
/// The code to end with, after help was printed or what is wrong was said.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    for flag in secrets(&arguments) {
        note!(
            "warning: {flag} has a user or a password in its URL, and arguments are everybody's to read: \
             say it by an environment variable or a file"
        );
    }
    parse_from(arguments).map_err(|error| {
        let code = u8::try_from(error.exit_code()).unwrap_or(2);
        match error.print() {
            // Help that nobody can read is no success.
            Err(failed) if code == 0 && failed.kind() != ErrorKind::BrokenPipe => ExitCode::FAILURE,
            _ => ExitCode::from(code),
        }
    })
}

fn parse_from<T: Parser>(arguments: Vec<OsString>) -> Result<T, clap::Error> {
    let mut command = with_set_variables(T::command());
    let matches = command.try_get_matches_from_mut(arguments);
    let parsed = matches.and_then(|mut matches| T::from_arg_matches_mut(&mut matches));
    parsed.map_err(|error| named(error.format(&mut command), &variables::<T>()))
}

/// The command without the variables that are set and empty. Values of variables are in no help: some are secret.
fn with_set_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| {
        let arg = arg.hide_env_values(true);
        if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg }
    });
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_set_variables))
}

/// Flags, as errors name them, and their variables.
fn variables<T: Parser>() -> HashMap<String, String> {
    fn all(command: &Command, found: &mut HashMap<String, String>) {
        let variable = |arg: &Arg| arg.get_env().map(|name| name.to_string_lossy().into_owned());
        found.extend(command.get_arguments().filter_map(|arg| Some((arg.to_string(), variable(arg)?))));
        command.get_subcommands().for_each(|sub| all(sub, found));
    }
    let (mut command, mut found) = (T::command(), HashMap::new());
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
        parse_from::<Cli>(arguments).unwrap_err().to_string()
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
