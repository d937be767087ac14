//! Commands about the command line itself: `config check` (effective settings, and all faults), `completions`, `man`.
//! Must not depend on the meaning of values.

use std::io;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::note;
use crate::out::Report;
use crate::settings::Setting;

/// The command's path.
pub const PATH: [&str; 2] = ["config", "check"];

/// Why `config check` failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The configuration has this many problems, which were printed.
    #[error("the configuration has {0} problem(s)")]
    Problems(usize),
    /// The output could not be written.
    #[error(transparent)]
    Unwritten(#[from] io::Error),
}

/// Prints the effective settings if `print`, and all problems.
///
/// # Errors
/// There are problems, or the output could not be written.
pub fn tell(settings: &[Setting], print: bool, problems: &[String]) -> Result<(), Failed> {
    let mut report = Report::new();
    if print {
        settings.iter().for_each(|setting| report.line(setting));
    }
    problems.iter().for_each(|problem| note!("- {problem}"));
    if !problems.is_empty() {
        return Err(Failed::Problems(problems.len()));
    }
    if !print {
        report.line("the configuration is valid");
    }
    Ok(report.whole()?)
}

/// `completions`.
#[derive(Debug, Clone, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

impl Completions {
    /// Prints a shell's completion script for a program.
    ///
    /// # Errors
    /// The output could not be written.
    pub fn print(&self, mut command: Command) -> io::Result<()> {
        let (name, mut text) = (command.get_name().to_owned(), Vec::new());
        clap_complete::generate(self.shell, &mut command, name, &mut text);
        whole(&text)
    }
}

/// `man`.
#[derive(Debug, Clone, Args)]
pub struct Man {
    /// Write the page of every command into this folder; without it the program's own page is printed
    #[arg(value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

impl Man {
    /// Prints the program's manual page, or writes those of all commands.
    ///
    /// # Errors
    /// A page could not be written.
    pub fn print(&self, command: Command) -> io::Result<()> {
        if let Some(folder) = &self.folder {
            std::fs::create_dir_all(folder)?;
            return clap_mangen::generate_to(command, folder);
        }
        let mut text = Vec::new();
        clap_mangen::Man::new(command).render(&mut text)?;
        whole(&text)
    }
}

fn whole(text: &[u8]) -> io::Result<()> {
    let mut report = Report::new();
    report.line(String::from_utf8_lossy(text).trim_end());
    report.whole()
}
