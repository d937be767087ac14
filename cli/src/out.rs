//! What a command says. Standard output has what it was asked for, standard error has words about how it goes. Either
//! may be closed, full, or read by nobody: that never panics and never ends the work. Must never know what is said.

use std::fmt;
use std::io::{self, ErrorKind, Write};

/// A line on standard output, as `println!`, whether or not somebody reads it.
#[macro_export]
macro_rules! say {
    ($($arguments:tt)*) => { $crate::out::say(format_args!($($arguments)*)) };
}

/// A line on standard error, as `eprintln!`, whether or not somebody reads it.
#[macro_export]
macro_rules! note {
    ($($arguments:tt)*) => { $crate::out::note(format_args!($($arguments)*)) };
}

/// A line on standard output. What becomes of it changes nothing.
pub fn say(line: fmt::Arguments<'_>) {
    // Nobody may be reading any more; that is no reason to stop.
    let _ = write_line(&mut io::stdout().lock(), line);
}

/// A line on standard error. What becomes of it changes nothing.
pub fn note(line: fmt::Arguments<'_>) {
    let _ = write_line(&mut io::stderr().lock(), line);
}

/// In one piece, so that lines of several processes do not mix.
fn write_line(out: &mut impl Write, line: fmt::Arguments<'_>) -> io::Result<()> {
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// Lines that a command was asked for, on standard output. After the first that cannot be written, none is tried.
#[derive(Debug, Default)]
pub struct Report {
    failed: Option<io::Error>,
}

impl Report {
    /// A report without a line.
    pub fn new() -> Report {
        Report::default()
    }

    /// A line.
    pub fn line(&mut self, line: impl fmt::Display) {
        if self.failed.is_none() {
            self.failed = write_line(&mut io::stdout().lock(), format_args!("{line}")).err();
        }
    }

    /// Whether lines still arrive: a command that does nothing but list may stop.
    pub fn is_read(&self) -> bool {
        self.failed.is_none()
    }

    /// For a command that only tells. A reader that has enough, as `head`, is no error; a full disk is.
    ///
    /// # Errors
    /// Why not all of it was written.
    pub fn end(self) -> io::Result<()> {
        match self.failed {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(told(&error)),
            _ => Ok(()),
        }
    }

    /// For what is of no use unless it was read to its end, such as a key that is shown once.
    ///
    /// # Errors
    /// Why not all of it was written.
    pub fn whole(self) -> io::Result<()> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(told(error)))
    }
}

/// Says which file it is about.
pub(crate) fn told(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))
}

/// Standard error for a log: a line that cannot be written is lost, and nothing else.
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
