//! What is wrong with a message or payload, and where. Its texts are safe to log.

use std::fmt;

/// The most characters of each text.
const LENGTH: usize = 512;

/// A payload that cannot be converted to or from its message.
///
/// Its texts may contain parts of the payload. They are short and have no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError {
    path: String,
    why: String,
}

impl CodecError {
    /// An error at `path`, such as `items[3].quantity`. An empty path, or `.`, stands for the message as a whole. Texts
    /// are cut at 512 characters, and their control characters replaced.
    pub fn new(path: &str, why: &str) -> CodecError {
        let path = if path == "." { "" } else { path };
        CodecError { path: short(path), why: short(why) }
    }

    /// Where the error is, such as `items[3].quantity`; empty if the message as a whole cannot be read.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.why) } else { write!(f, "{}: {}", self.path, self.why) }
    }
}

impl std::error::Error for CodecError {}

fn short(text: &str) -> String {
    text.chars().take(LENGTH).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
