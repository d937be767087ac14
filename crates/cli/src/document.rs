//! The configuration file: TOML, one key per flag, named as the flag with `_` for `-`. Must not depend on the meaning
//! of values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Arg, Args, Command};
use strsim::osa_distance;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::leaf::{key, variable};

/// The option that names the file.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Options {
    /// Configuration file: TOML, one key per flag, with `_` for `-`. Flags and variables override it
    #[arg(long, env = "GW_CONFIG", global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A value, and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) text: String,
    /// The place, as in `gateway.toml, line 3`.
    pub(crate) place: String,
}

/// The values in a file, by the equivalent variables.
pub(crate) type Document = BTreeMap<String, Value>;

/// The arguments allowed in a file, by key: those of the whole program.
fn keys(plain: &Command) -> BTreeMap<String, Arg> {
    let args = plain.get_arguments().filter(|arg| arg.get_id() != "config" && variable(arg).is_some());
    args.filter_map(|arg| Some((key(arg)?, arg.clone()))).collect()
}

/// Reads a file.
///
/// # Errors
/// Returns the valid values, and all faults.
pub(crate) fn read(path: &Path, plain: &Command) -> (Document, Vec<String>) {
    let name = path.display();
    let text = crate::file::read(path).map_err(|error| error.to_string());
    let text = text.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()));
    match text {
        Ok(text) => parse(&name.to_string(), &text, plain),
        Err(why) => (Document::new(), vec![format!("--config (GW_CONFIG): cannot read {name}: {why}")]),
    }
}

fn parse(name: &str, text: &str, plain: &Command) -> (Document, Vec<String>) {
    let place = |offset: usize| {
        let line = text.get(..offset).unwrap_or(text).matches('\n').count() + 1;
        format!("{name}, line {line}")
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let place = error.span().map_or_else(|| name.to_owned(), |span| place(span.start));
            return (Document::new(), vec![format!("{place}: {}", error.message())]);
        }
    };
    let (mut document, mut faults) = (Document::new(), Vec::new());
    let keys = keys(plain);
    for (key, value) in table.get_ref() {
        let place = place(key.span().start);
        let known = keys.get(key.get_ref().as_ref());
        let Some((arg, variable)) = known.and_then(|arg| Some((arg, variable(arg)?))) else {
            let near = nearest(key.get_ref(), keys.keys());
            let meant = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            faults.push(format!("{place}: unknown key {:?}{meant}", key.get_ref()));
            continue;
        };
        match plainly(value, arg) {
            Ok(text) => drop(document.insert(variable, Value { text, place })),
            Err(why) => faults.push(format!("{place}: {} {why}", key.get_ref())),
        }
    }
    (document, faults)
}

/// The most similar name, if one is similar enough.
fn nearest<'a>(name: &str, all: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let near = all.map(|other| (osa_distance(other, name), other)).min()?;
    (near.0 <= 2.max(name.len() / 3)).then_some(near.1)
}

/// Formats a value as for an argument.
fn plainly(value: &Spanned<DeValue<'_>>, arg: &Arg) -> Result<String, String> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().replace('_', "")),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(is) => Ok(is.to_string()),
        DeValue::Array(all) if arg.get_value_delimiter().is_some() => {
            let all: Result<Vec<_>, _> = all.iter().map(|one| plainly(one, arg)).collect();
            let all = all?;
            match all.iter().find(|one| one.contains(',')) {
                Some(one) => {
                    Err(format!("contains {one:?}: values must not contain a comma, their separator"))
                }
                None => Ok(all.join(",")),
            }
        }
        other => Err(format!("cannot be {}: use a string, a number, true or false", other.type_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Document, Vec<String>) {
        let arg = |name: &'static str, variable: &'static str| Arg::new(name).long(name).env(variable);
        let plain = Command::new("test")
            .arg(arg("grpc-addr", "GW_GRPC_ADDR"))
            .arg(arg("http-hosts", "GW_HTTP_HOSTS").value_delimiter(','))
            .arg(arg("log", "RUST_LOG"))
            .arg(arg("config", "GW_CONFIG"))
            .arg(Arg::new("help-me").long("help-me"));
        parse("gateway.toml", text, &plain)
    }

    #[test]
    fn a_key_is_a_flags_name_and_a_value_is_text_a_number_or_a_list() {
        let text = "# here\ngrpc_addr = \"[::1]:1\"\nhttp_hosts = ['a', \"b\"]\nlog = 1_000\n";
        let (document, faults) = read(text);
        assert!(faults.is_empty(), "{faults:?}");
        let value = |name: &str| (document[name].text.as_str(), document[name].place.as_str());
        assert_eq!(value("GW_GRPC_ADDR"), ("[::1]:1", "gateway.toml, line 2"));
        assert_eq!(value("GW_HTTP_HOSTS"), ("a,b", "gateway.toml, line 3"));
        assert_eq!(value("RUST_LOG").0, "1000");
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_line() {
        let text = "\ngrpc_adr = 1\nlog = { a = 1 }\nconfig = 'x'\nhttp_hosts = ['a,b']\nhelp_me = 1\n[http]\nx = 1\n";
        let (document, faults) = read(text);
        assert!(document.is_empty() && faults.len() == 6, "{faults:?}");
        let told = |line: usize, word: &str| {
            faults.iter().any(|fault| {
                fault.starts_with(&format!("gateway.toml, line {line}: ")) && fault.contains(word)
            })
        };
        assert!(told(2, "did you mean grpc_addr?") && told(3, "log cannot be"), "{faults:?}");
        assert!(told(4, "config") && told(5, "comma") && told(6, "help_me") && told(7, "http"), "{faults:?}");
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let (_, faults) = read("grpc_addr = 'a'\nlog = \n");
        assert!(faults.len() == 1 && faults[0].starts_with("gateway.toml, line 2: "), "{faults:?}");
        let (_, faults) = read("log = 'a'\nlog = 'b'\n");
        assert!(faults.len() == 1 && faults[0].contains("line 2"), "{faults:?}");
    }
}
