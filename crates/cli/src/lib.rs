//! Shared by the commands of every program: arguments with their environment variables, output that survives a closed
//! standard output, files readable by their owner only, and CSV. Must not depend on what a command does.

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod arguments;
pub mod check;
pub mod document;
pub mod file;
mod leaf;
mod misspelt;
pub mod out;
mod parsed;
pub mod reference;
mod resolve;
pub mod rows;
pub mod settings;
pub mod units;
pub mod url;
pub mod variables;

pub use arguments::{Parsed, parse, read};
pub use out::Report;
pub use settings::Setting;
