//! Output of commands. Standard output carries the result, standard error carries progress messages. Either may be
//! closed, full, or unread: that never panics and never ends the work. Must not depend on the contents.

use std::fmt;
use std::io::{self, ErrorKind, Write};

/// Prints a line to standard output, like `println!`, but ignores write errors.
#[macro_export]
macro_rules! say {
    ($($arguments:tt)*) => { $crate::out::say(format_args!($($arguments)*)) };
}

/// Prints a line to standard error, like `eprintln!`, but ignores write errors.
#[macro_export]
macro_rules! note {
    ($($arguments:tt)*) => { $crate::out::note(format_args!($($arguments)*)) };
}

/// Prints a line to standard output and ignores write errors.
pub fn say(line: fmt::Arguments<'_>) {
    // A closed reader is no reason to stop.
    let _ = write_line(&mut io::stdout().lock(), line);
}

/// Prints a line to standard error and ignores write errors.
pub fn note(line: fmt::Arguments<'_>) {
    let _ = write_line(&mut io::stderr().lock(), line);
}

/// Writes the line at once, so that lines of several processes do not mix.
fn write_line(out: &mut impl Write, line: fmt::Arguments<'_>) -> io::Result<()> {
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// A command's result, line by line, on standard output. After the first write error nothing more is written.
#[derive(Debug, Default)]
pub struct Report {
    failed: Option<io::Error>,
}

impl Report {
    /// An empty report.
    pub fn new() -> Report {
        Report::default()
    }

    /// Writes a line.
    pub fn line(&mut self, line: impl fmt::Display) {
        if self.failed.is_none() {
            self.failed = write_line(&mut io::stdout().lock(), format_args!("{line}")).err();
        }
    }

    /// Whether lines are still written: a command that only lists may stop otherwise.
    pub fn is_read(&self) -> bool {
        self.failed.is_none()
    }

    /// Ends a report that may be read in part: a reader that stops, like `head`, is not an error; a full disk is.
    ///
    /// # Errors
    /// The first write error.
    pub fn end(self) -> io::Result<()> {
        match self.failed {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(told(&error)),
            _ => Ok(()),
        }
    }

    /// Ends a report that is useless unless read to its end, such as a key that is shown once.
    ///
    /// # Errors
    /// The first write error.
    pub fn whole(self) -> io::Result<()> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(told(error)))
    }
}

/// Adds the name of the stream to an error.
pub(crate) fn told(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))
}

/// Standard error for a log: a line that cannot be written is lost, without further effect.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Write for Quiet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().lock().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
