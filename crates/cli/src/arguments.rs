//! The command line, and the environment variables that stand for its flags: an empty variable counts as unset, and an
//! invalid value is reported with its flag and its variable. Must not depend on their meaning.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;

pub use crate::parsed::Parsed;
use crate::resolve::resolve;
use crate::{note, url};

/// Reads the arguments of this process, and prints warnings.
///
/// # Errors
/// The exit code, after help or the faults were printed.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    let Parsed { cli, warnings, .. } = read(&[])?;
    warnings.iter().for_each(|warning| note!("warning: {warning}"));
    Ok(cli)
}

/// Reads the arguments of this process, with the environment and the file that stand for flags. The command at the path
/// `lenient` gets the faults; for any other command they are errors.
///
/// # Errors
/// The exit code, after help or the faults were printed.
pub fn read<T: Parser>(lenient: &[&str]) -> Result<Parsed<T>, ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let told = |flag: String| {
        format!(
            "{flag} has a URL with a user or a password, and every user of this machine can read arguments: use an \
             environment variable or a file"
        )
    };
    let mut warnings: Vec<String> = secrets(&arguments).into_iter().map(told).collect();
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    match resolve(&arguments, &environment, lenient) {
        Ok(parsed) => {
            warnings.extend(parsed.warnings);
            Ok(Parsed { warnings, ..parsed })
        }
        Err(error) => {
            warnings.iter().for_each(|warning| note!("warning: {warning}"));
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            Err(match error.print() {
                // Help that could not be written is not a success.
                Err(failed) if code == 0 && failed.kind() != ErrorKind::BrokenPipe => ExitCode::FAILURE,
                _ => ExitCode::from(code),
            })
        }
    }
}

/// Returns the flags whose value is a URL with user information.
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
    use std::collections::BTreeMap;
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
        let arguments: Vec<_> = ["cli"].iter().chain(arguments).map(OsString::from).collect();
        match resolve::<Cli>(&arguments, &BTreeMap::new(), &[]) {
            Ok(parsed) => parsed.problems.join("; "),
            Err(error) => error.to_string(),
        }
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
