//! What a command line was parsed into, or its error with the names of variables. Must not read anything.

use std::collections::HashMap;

use clap::error::{ContextKind, ContextValue};

use crate::settings::Setting;
use crate::url;

/// The parsed arguments, with the messages to report once the output format is known.
#[derive(Debug)]
pub struct Parsed<T> {
    /// The parsed arguments.
    pub cli: T,
    /// Warnings: things to fix that still work for now.
    pub warnings: Vec<String>,
    /// Faults, for a command that lists them.
    pub problems: Vec<String>,
    /// The effective settings, with their sources.
    pub settings: Vec<Setting>,
}

impl<T> Parsed<T> {
    pub(crate) fn of(cli: T) -> Parsed<T> {
        Parsed { cli, warnings: Vec::new(), problems: Vec::new(), settings: Vec::new() }
    }
}

/// Adds the variable beside each flag in an error, and removes secrets from its value.
pub(crate) fn named(mut error: clap::Error, variables: &HashMap<String, String>) -> clap::Error {
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
