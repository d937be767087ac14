//! The effective settings with their sources, printed as an equivalent configuration file. Must not show secrets.

use std::fmt;
use std::time::Duration;

use clap::{Arg, ArgMatches};
use toml::Value;

use crate::{units, url};

/// The variables with secrets, which have no flags.
const SECRETS: [&str; 2] = ["NATS_PASSWORD", "NATS_TOKEN"];
/// Shown in place of a secret.
const HIDDEN: &str = "is set (value not shown)";

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The default.
    Default,
    /// The file, with the line.
    File(String),
    /// An environment variable, by name.
    Environment(String),
    /// A flag, by name.
    Flag(String),
}

/// An effective setting.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its key in a file.
    pub key: String,
    /// Its value, formatted as in a file; `None` if unset.
    value: Shown,
    /// Its source.
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
            // Headers may carry a collector's credentials.
            Some(_) if key.ends_with("_headers") => Shown::Secret,
            Some(value) => Shown::Value(value),
        };
        Setting { key, value, source }
    }

    /// The secrets that are set.
    pub(crate) fn secrets(is_set: impl Fn(&str) -> bool) -> impl Iterator<Item = Setting> {
        SECRETS.into_iter().filter(move |name| is_set(name)).map(|name| Setting {
            key: name.to_lowercase(),
            value: Shown::Secret,
            source: Source::Environment(name.to_owned()),
        })
    }
}

/// An argument's value in TOML, with its unit.
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

/// Formats problems as a list.
pub(crate) fn listed(problems: &[String]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("\n  - {problem}")).collect();
    format!("{} problems with the configuration:{}", problems.len(), lines.concat())
}

/// The text of a clap error, without the usage.
pub(crate) fn brief(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|mark| text.find(mark)).min();
    let words: Vec<&str> = text[..end.unwrap_or(text.len())].split_whitespace().collect();
    words.join(" ")
}
