//! What the commands of every program share: arguments and the environment variables that stand for them, standard
//! output that nobody may be reading any more, files that are nobody else's to read, lines of CSV. Must never know what
//! a command does.

pub mod arguments;
pub mod check;
pub mod document;
pub mod file;
mod leaf;
mod misspelt;
pub mod out;
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
