//! Resolves flags, environment and file into a program's arguments: flags override the environment, which overrides the
//! file, which overrides the defaults. All faults of the environment and the file are found at once. Must not depend on
//! the meaning of values.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, ArgMatches, Command, Parser};

use crate::document::{self, Document};
use crate::leaf::{Leaf, Taken, edit, flags, key};
use crate::misspelt::Misspelt;
use crate::parsed::{Parsed, named};
use crate::settings::{Setting, Source, brief, listed};
use crate::variables::{Environment, Names};

/// The variable that names the configuration file.
const CONFIG: &str = "GW_CONFIG";

/// An attempt to parse, and the faults found so far.
struct Attempt<'a> {
    arguments: &'a [OsString],
    environment: &'a Environment,
    plain: Command,
    /// The flags, as errors name them, with their variables.
    flags: HashMap<String, String>,
    names: Names,
    leaf: Leaf,
    document: Document,
    /// Variables with invalid values.
    dropped: BTreeSet<String>,
    /// Whether arguments may lack others that they require.
    is_lax: bool,
    problems: Vec<String>,
    /// The last fault, if it is clap's error.
    error: Option<clap::Error>,
}

/// Parses the arguments. The command at the path `lenient` gets the faults; for others they are errors.
pub(crate) fn resolve<T: Parser>(
    arguments: &[OsString],
    environment: &Environment,
    lenient: &[&str],
) -> Result<Parsed<T>, clap::Error> {
    let (plain, names) = (T::command(), Names::of(environment));
    let Some(leaf) = Leaf::find(&plain, arguments) else {
        let mut command = names.apply(plain, environment);
        let found = command.try_get_matches_from_mut(arguments);
        let parsed = found.and_then(|mut matches| T::from_arg_matches_mut(&mut matches));
        return parsed.map(Parsed::of).map_err(|error| error.format(&mut command));
    };
    let mut attempt = Attempt {
        arguments,
        environment,
        flags: flags(plain.clone()),
        plain,
        names,
        leaf,
        document: Document::new(),
        dropped: BTreeSet::new(),
        is_lax: false,
        problems: Vec::new(),
        error: None,
    };
    let warnings = attempt.look();
    let (mut command, mut matches) = attempt.run()?;
    let settings = attempt.settings(&matches);
    let cli = T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
    let Attempt { leaf, problems, error, .. } = attempt;
    let is_lenient = leaf.path.iter().map(String::as_str).eq(lenient.iter().copied());
    match (&problems[..], error) {
        ([], _) => Ok(Parsed { warnings, settings, ..Parsed::of(cli) }),
        _ if is_lenient => Ok(Parsed { cli, warnings, problems, settings }),
        ([_], Some(error)) => Err(error),
        ([problem], None) => Err(command.error(ErrorKind::ValueValidation, problem)),
        (all, _) => Err(command.error(ErrorKind::ValueValidation, listed(all))),
    }
}

impl Attempt<'_> {
    /// Checks the names of variables and the file; returns warnings.
    fn look(&mut self) -> Vec<String> {
        if !self.leaf.is_configured() {
            return Vec::new();
        }
        self.problems.append(&mut self.names.faults);
        let read: BTreeSet<String> = self.flags.values().cloned().collect();
        let misspelt = Misspelt::of(self.environment, &read);
        self.problems.extend(misspelt.faults);
        let taken: BTreeSet<&str> = self.leaf.taken.iter().map(|taken| taken.variable.as_str()).collect();
        let mut warnings = self.names.warnings(|new| taken.contains(new));
        warnings.extend(misspelt.warnings);
        let set = self.environment.get(CONFIG).filter(|path| !path.is_empty() && read.contains(CONFIG));
        if let Some(path) = self.leaf.file.clone().or(set.map(PathBuf::from)) {
            let (document, faults) = document::read(&path, &self.plain);
            self.document = document;
            self.problems.extend(faults);
        }
        warnings
    }

    /// Parses again, dropping one faulty value each time, until the environment and the file have no faults.
    fn run(&mut self) -> Result<(Command, ArgMatches), clap::Error> {
        loop {
            let mut command = self.command();
            let error = match command.try_get_matches_from_mut(self.with_document()) {
                Ok(matches) => return Ok((command, matches)),
                Err(error) => error.format(&mut command),
            };
            let culprit = self.culprit(&error);
            let lacks = culprit.is_none() && error.kind() == ErrorKind::MissingRequiredArgument;
            // Before the value is dropped, because the message names its place.
            let error = named(error, &self.origins());
            let mended = match culprit {
                Some(variable) => self.dropped.insert(variable),
                None => lacks && !self.is_lax,
            };
            self.is_lax |= lacks;
            if !mended {
                return Err(self.error.take().unwrap_or(error));
            }
            self.problems.push(brief(&error));
            self.error = Some(error);
        }
    }

    /// The command for the next attempt.
    fn command(&self) -> Command {
        let command = self.names.apply(self.plain.clone(), self.environment);
        edit(command, &|arg| {
            let variable = arg.get_env().map(|name| self.names.today(&name.to_string_lossy()));
            let arg = if self.is_lax { arg.requires(Resettable::Reset) } else { arg };
            let is_dropped = variable.is_some_and(|variable| self.dropped.contains(&variable));
            if is_dropped { arg.env(Resettable::Reset) } else { arg }
        })
    }

    /// The arguments, with those from the file added.
    fn with_document(&self) -> Vec<OsString> {
        let more = self.leaf.taken.iter().filter_map(|taken| {
            let Source::File(_) = self.source(taken) else { return None };
            let (flag, value) = (taken.arg.get_long()?, &self.document.get(&taken.variable)?.text);
            match (taken.arg.get_action(), value.as_str()) {
                (ArgAction::SetTrue, "true") => Some(format!("--{flag}").into()),
                (ArgAction::SetTrue, "false") => None,
                _ => Some(OsString::from(format!("--{flag}={value}"))),
            }
        });
        let end = self.arguments.iter().position(|argument| argument == "--").unwrap_or(self.arguments.len());
        let (before, after) = self.arguments.split_at(end);
        before.iter().cloned().chain(more).chain(after.iter().cloned()).collect()
    }

    /// The source of an option's value.
    fn source(&self, taken: &Taken) -> Source {
        let variable = &taken.variable;
        let set = self.names.set_as(variable);
        let is_set = self.environment.get(set).is_some_and(|value| !value.is_empty());
        if taken.is_given {
            return Source::Flag(taken.arg.get_long().unwrap_or_default().to_owned());
        }
        match self.document.get(variable) {
            _ if self.dropped.contains(variable) => Source::Default,
            _ if is_set => Source::Environment(set.to_owned()),
            Some(value) => Source::File(value.place.clone()),
            None => Source::Default,
        }
    }

    /// The variable that an error is about, if its value is not from the arguments.
    fn culprit(&self, error: &clap::Error) -> Option<String> {
        use ErrorKind::{InvalidValue, TooManyValues, ValueValidation};
        let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
        let variable = self.flags.get(flag)?;
        let given = self.leaf.taken.iter().any(|taken| taken.is_given && taken.variable == *variable);
        let about = [InvalidValue, TooManyValues, ValueValidation].contains(&error.kind());
        (about && !given).then(|| variable.clone())
    }

    /// The source of each flag's value, to name it in errors.
    fn origins(&self) -> HashMap<String, String> {
        let origin = |flag: &String, variable: &String| {
            let taken = self.leaf.taken.iter().find(|taken| taken.arg.to_string() == *flag);
            match taken.map(|taken| self.source(taken)) {
                Some(Source::File(place)) => place,
                _ => self.names.set_as(variable).to_owned(),
            }
        };
        self.flags.iter().map(|(flag, variable)| (flag.clone(), origin(flag, variable))).collect()
    }

    /// The effective settings.
    fn settings(&self, matches: &ArgMatches) -> Vec<Setting> {
        let mut below = matches;
        while let Some((_, sub)) = below.subcommand() {
            below = sub;
        }
        let set = |taken: &Taken| Some(Setting::of(key(&taken.arg)?, &taken.arg, below, self.source(taken)));
        let shown = self.leaf.taken.iter().filter(|taken| taken.variable != CONFIG).filter_map(set);
        let is_set = |name: &str| self.environment.get(name).is_some_and(|value| !value.is_empty());
        shown.chain(Setting::secrets(is_set)).collect()
    }
}
