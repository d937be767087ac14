//! The values that are in force and where each is from, as a configuration file that says the same. Must never show a
//! secret.

use std::fmt;
use std::time::Duration;

use clap::{Arg, ArgMatches};
use toml::Value;

use crate::{units, url};

/// Variables with secrets, which have no flags.
const SECRETS: [&str; 2] = ["NATS_PASSWORD", "NATS_TOKEN"];
/// What is said of a secret.
const HIDDEN: &str = "is set, and not shown";

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The file, with the line.
    File(String),
    /// This variable.
    Environment(String),
    /// This flag.
    Flag(String),
}

/// A value that is in force.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its key in a file.
    pub key: String,
    /// What it is, as in a file; none: it is not set.
    value: Shown,
    /// Where it is from.
    pub source: Source,
}

#[derive(Debug, Clone)]
enum Shown {
    Value(String),
    Secret,
    Nothing,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(place) => write!(f, "file {place}"),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Shown::Value(value) => write!(f, "{} = {value}  # {}", self.key, self.source),
            Shown::Secret => write!(f, "# {} {HIDDEN}: {}", self.key, self.source),
            Shown::Nothing => write!(f, "# {} is not set", self.key),
        }
    }
}

impl Setting {
    pub(crate) fn of(key: String, arg: &Arg, matches: &ArgMatches, source: Source) -> Setting {
        let value = match value(arg, matches) {
            None => Shown::Nothing,
            // Their values are whatever a collector asks for.
            Some(_) if key.ends_with("_headers") => Shown::Secret,
            Some(value) => Shown::Value(value),
        };
        Setting { key, value, source }
    }

    /// The secrets among the variables that are set.
    pub(crate) fn secrets(is_set: impl Fn(&str) -> bool) -> impl Iterator<Item = Setting> {
        SECRETS.into_iter().filter(move |name| is_set(name)).map(|name| Setting {
            key: name.to_lowercase(),
            value: Shown::Secret,
            source: Source::Environment(name.to_owned()),
        })
    }
}

/// What an argument is, as TOML has it, and with its unit.
fn value(arg: &Arg, matches: &ArgMatches) -> Option<String> {
    let id = arg.get_id().as_str();
    if let Ok(found) = matches.try_get_one::<bool>(id) {
        return found.map(bool::to_string);
    }
    if let Ok(found) = matches.try_get_one::<Duration>(id) {
        return found.map(|duration| text(&units::shown(*duration)));
    }
    let raw: Vec<String> = matches.get_raw(id)?.map(|raw| url::cleaned(&raw.to_string_lossy())).collect();
    if arg.get_value_delimiter().is_some() {
        return Some(Value::Array(raw.into_iter().map(Value::String).collect()).to_string());
    }
    let raw = raw.into_iter().next_back()?;
    let names = arg.get_value_names().unwrap_or_default();
    if names.iter().any(|name| name == "SIZE") {
        return units::bytes(&raw).ok().map(|bytes| text(&units::size(bytes)));
    }
    let is_number = raw.parse::<i64>().is_ok_and(|number| number.to_string() == raw);
    Some(if is_number { raw } else { text(&raw) })
}

fn text(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// Problems as a list.
pub fn listed(problems: &[String]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("\n  - {problem}")).collect();
    format!("{} problems with the configuration:{}", problems.len(), lines.concat())
}

/// What an error says, without how commands are used.
pub(crate) fn brief(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|mark| text.find(mark)).min();
    let words: Vec<&str> = text[..end.unwrap_or(text.len())].split_whitespace().collect();
    words.join(" ")
}
