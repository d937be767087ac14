//! What `gateway doctor` has found: findings with their cures, what could not be looked at, and how that is printed. Must
//! not ask anything.

use std::collections::BTreeSet;
use std::fmt;

use catalog::Route;
use serde_json::{Value, json};

/// The most characters of a text: services and servers choose some of them.
const LENGTH: usize = 512;
/// How many names a text lists.
const NAMES: usize = 5;

/// Whether the exit code is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Calls fail, are answered wrongly, or lose what they promise to keep.
    Error,
    /// Something is not as it should be; calls may work nevertheless.
    Warning,
}

/// What a finding is about. Names of the checks, stable for programs that read the JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The rpc, as `service/rpc`.
    pub route: Option<String>,
    /// A subject or a pattern of subjects.
    pub subject: Option<String>,
    /// A stream.
    pub stream: Option<String>,
    /// An instance of a service, or a service whose instances differ.
    pub instance: Option<String>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How wrong.
    pub severity: Severity,
    /// Which check has found it.
    pub check: &'static str,
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub cure: String,
}

/// Something of which nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unseen {
    /// Which check could not be made.
    pub check: &'static str,
    /// Of what.
    pub place: Place,
    /// Why, and what would help.
    pub why: String,
}

/// Everything that was found. Sorted, each thing once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// What is wrong, errors first.
    pub findings: BTreeSet<Finding>,
    /// What could not be looked at.
    pub unseen: BTreeSet<Unseen>,
    /// How many routes were looked at.
    pub routes: usize,
    /// The streams that were looked at.
    pub streams: BTreeSet<String>,
}

impl Place {
    /// A route and its subject.
    pub(super) fn of(route: &Route) -> Place {
        let name = route.path.trim_start_matches('/').to_owned();
        Place { route: Some(name), subject: Some(route.subject.to_string()), ..Place::default() }
    }

    /// The same, of this stream.
    pub(super) fn stream(self, stream: impl Into<String>) -> Place {
        Place { stream: Some(safe(&stream.into())), ..self }
    }

    /// The same, of this instance or service.
    pub(super) fn instance(self, instance: impl Into<String>) -> Place {
        Place { instance: Some(safe(&instance.into())), ..self }
    }

    fn parts(&self) -> [(&'static str, &Option<String>); 4] {
        let Place { route, subject, stream, instance } = self;
        [("route", route), ("subject", subject), ("stream", stream), ("instance", instance)]
    }

    fn json(&self, mut of: Value) -> Value {
        for (name, part) in self.parts() {
            if let Some(part) = part {
                of[name] = part.as_str().into();
            }
        }
        of
    }
}

impl Diagnosis {
    /// Adds an error.
    pub(super) fn error(
        &mut self,
        check: &'static str,
        place: Place,
        problem: impl fmt::Display,
        cure: impl fmt::Display,
    ) {
        self.add(Severity::Error, check, place, problem, cure);
    }

    /// Adds a warning.
    pub(super) fn warning(
        &mut self,
        check: &'static str,
        place: Place,
        problem: impl fmt::Display,
        cure: impl fmt::Display,
    ) {
        self.add(Severity::Warning, check, place, problem, cure);
    }

    /// Adds a finding.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        check: &'static str,
        place: Place,
        problem: impl fmt::Display,
        cure: impl fmt::Display,
    ) {
        let (problem, cure) = (safe(&problem.to_string()), safe(&cure.to_string()));
        self.findings.insert(Finding { severity, check, place, problem, cure });
    }

    /// Says that something could not be looked at.
    pub(super) fn not_looked_at(&mut self, check: &'static str, place: Place, why: impl fmt::Display) {
        self.unseen.insert(Unseen { check, place, why: safe(&why.to_string()) });
    }

    /// Takes what another check has found.
    pub(super) fn merge(&mut self, other: Diagnosis) {
        self.findings.extend(other.findings);
        self.unseen.extend(other.unseen);
        self.streams.extend(other.streams);
        self.routes += other.routes;
    }

    /// How many findings there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// The lines for a person, the summary last.
    pub fn lines(&self) -> Vec<String> {
        let findings = self.findings.iter().map(ToString::to_string);
        let unseen = self.unseen.iter().map(ToString::to_string);
        findings.chain(unseen).chain([self.summary()]).collect()
    }

    /// All of it for a program, as one object.
    pub fn json(&self) -> Value {
        let finding = |finding: &Finding| {
            finding.place.json(json!({
                "severity": finding.severity.name(),
                "check": finding.check,
                "problem": finding.problem,
                "cure": finding.cure,
            }))
        };
        let unseen = |unseen: &Unseen| unseen.place.json(json!({ "check": unseen.check, "why": unseen.why }));
        json!({
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "not_looked_at": self.unseen.iter().map(unseen).collect::<Vec<_>>(),
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "routes": self.routes,
            "streams": self.streams,
        })
    }

    fn summary(&self) -> String {
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        let mut text = match errors + warnings {
            0 => format!(
                "nothing found: {}, {} looked at",
                several(self.routes, "route"),
                several(self.streams.len(), "stream")
            ),
            all => format!(
                "{}: {}, {}",
                several(all, "finding"),
                several(errors, "error"),
                several(warnings, "warning")
            ),
        };
        if !self.unseen.is_empty() {
            text += &format!("; {} not looked at", several(self.unseen.len(), "thing"));
        }
        text
    }
}

impl Severity {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { severity, check, place, problem, cure } = self;
        write!(f, "{}: {check}: {place}{problem}; {cure}", severity.name())
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not looked at: {}: {}{}", self.check, self.place, self.why)
    }
}

/// With a colon behind; nothing if it is the connection as a whole.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut behind = false;
        for (name, part) in self.parts() {
            let Some(part) = part else { continue };
            let gap = if behind { ", " } else { "" };
            match name {
                "route" => write!(f, "{gap}{part}")?,
                _ => write!(f, "{gap}{name} {part}")?,
            }
            behind = true;
        }
        if behind { f.write_str(": ") } else { Ok(()) }
    }
}

/// A number with its noun.
pub(super) fn several(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// The first of these names, and how many there are beyond.
pub(super) fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A text without control characters, and not too long for a line.
fn safe(text: &str) -> String {
    text.chars().take(LENGTH).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_sorted_printed_once_and_counted() {
        let mut found = Diagnosis { routes: 2, ..Diagnosis::default() };
        assert_eq!(found.lines(), ["nothing found: 2 routes, 0 streams looked at"]);
        let place = Place::default().stream("A\u{1b}[2J");
        found.warning("payload", Place::default(), "small", "raise it");
        for _ in 0..2 {
            found.error("stream", place.clone(), "it is gone", "make it");
        }
        found.not_looked_at("clock", Place::default(), "no answer");
        assert_eq!(
            found.lines(),
            [
                "error: stream: stream A?[2J: it is gone; make it",
                "warning: payload: small; raise it",
                "not looked at: clock: no answer",
                "2 findings: 1 error, 1 warning; 1 thing not looked at",
            ]
        );
        let told = found.json();
        assert_eq!((&told["errors"], &told["findings"][0]["stream"]), (&json!(1), &json!("A?[2J")));
        assert_eq!(told["findings"][1]["cure"], "raise it");
    }
}
