//! What is wrong with a descriptor set: where, what, and what to change. Must not decide what is wrong.

use std::fmt;

use prost_reflect::{FileDescriptor, MethodDescriptor};

/// The most characters of each text.
const LENGTH: usize = 512;
/// Stands for the file where there is none.
const SET: &str = "descriptor set";

/// One thing that is wrong with a descriptor set. Its texts are safe to log: they are short and have no control
/// characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, such as `bookstore/v1/books.proto`; `descriptor set` if it concerns the set as a whole.
    pub file: String,
    /// The line in the file, from 1, if the set has source information.
    pub line: Option<u32>,
    /// The full name of the rpc or service; empty if it concerns the whole file.
    pub element: String,
    /// What is wrong.
    pub problem: String,
    /// What to change.
    pub remedy: String,
}

/// Everything that is wrong with a descriptor set: at least one finding. Displayed as one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Finding {
    /// A finding about an rpc.
    pub(crate) fn of(
        method: &MethodDescriptor,
        problem: impl fmt::Display,
        remedy: impl fmt::Display,
    ) -> Finding {
        let file = method.parent_file();
        let (line, file) = (line(&file, method.path()), file.name().to_owned());
        Finding { line, ..Finding::at(file, method.full_name(), problem, remedy) }
    }

    /// A finding about the set as a whole.
    pub(crate) fn of_set(element: &str, problem: impl fmt::Display, remedy: impl fmt::Display) -> Finding {
        Finding::at(SET, element, problem, remedy)
    }

    /// A finding about something else in a file.
    pub(crate) fn at(
        file: impl AsRef<str>,
        element: &str,
        problem: impl fmt::Display,
        remedy: impl fmt::Display,
    ) -> Finding {
        let [file, element, problem, remedy] =
            [file.as_ref(), element, &problem.to_string(), &remedy.to_string()].map(short);
        Finding { file, line: None, element, problem, remedy }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.element.is_empty() {
            write!(f, ": {}", self.element)?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

impl Findings {
    /// Nothing if there are no findings.
    pub(crate) fn some(findings: Vec<Finding>) -> Option<Findings> {
        (!findings.is_empty()).then_some(Findings(findings))
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Findings {
    type Item = &'a Finding;
    type IntoIter = std::slice::Iter<'a, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Finding> for Findings {
    fn from(finding: Finding) -> Findings {
        Findings(vec![finding])
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            write!(f, "{}{finding}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}

/// The line where the element with this path begins, from 1.
pub(crate) fn line(file: &FileDescriptor, path: &[i32]) -> Option<u32> {
    let places = &file.file_descriptor_proto().source_code_info.as_ref()?.location;
    let begin = *places.iter().find(|place| place.path == path)?.span.first()?;
    u32::try_from(begin).ok()?.checked_add(1)
}

fn short(text: &str) -> String {
    text.chars().take(LENGTH).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
