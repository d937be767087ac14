//! Files that only the holders of a key can read, in the age format (age-encryption.org/v1): written and read piece by
//! piece, 64 KiB at a time. Must never know what is in them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use age::stream::{StreamReader, StreamWriter};
use age::x25519;

/// What is added to the name of a file that is encrypted.
pub const SUFFIX: &str = ".age";

/// Whom files are encrypted for; for nobody, they are not.
#[derive(Clone, Default)]
pub struct Recipients(Vec<x25519::Recipient>);

/// What files are decrypted with.
#[derive(Default)]
pub struct Identities(Vec<x25519::Identity>);

/// A file that is written, encrypted or not.
pub(crate) enum Sink {
    Plain(File),
    Sealed(Box<StreamWriter<File>>),
}

/// A file that is read, encrypted or not.
pub(crate) enum Source {
    Plain(File),
    Sealed(Box<StreamReader<File>>),
}

impl Recipients {
    /// Public keys, `age1…`, of which each can decrypt by its own.
    ///
    /// # Errors
    /// When one is none, or a file of them (a line each, `#` for comments) cannot be read or has none.
    pub fn read(keys: &[String], files: &[impl AsRef<Path>]) -> Result<Recipients, String> {
        let mut found = Vec::new();
        let parse = |text: &str, place: &str| {
            let key = text.parse::<x25519::Recipient>();
            key.map_err(|why| format!("{place} {text:?} is no recipient of age, as in age1ql3z…: {why}"))
        };
        for key in keys {
            found.push(parse(key, "--recipient")?);
        }
        for path in files {
            let place = format!("--recipients-file {}:", path.as_ref().display());
            let lines = lines(path.as_ref()).map_err(|error| format!("{place} {error}"))?;
            for line in lines {
                found.push(parse(&line, &place)?);
            }
        }
        Ok(Recipients(found))
    }

    /// Whether there is nobody.
    pub fn none(&self) -> bool {
        self.0.is_empty()
    }

    /// A file for them. It is whole when it is finished.
    pub(crate) fn seal(&self, file: File) -> io::Result<Sink> {
        if self.none() {
            return Ok(Sink::Plain(file));
        }
        let recipients = self.0.iter().map(|recipient| recipient as &dyn age::Recipient);
        let sealed = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        Ok(Sink::Sealed(Box::new(sealed.wrap_output(file)?)))
    }
}

impl Identities {
    /// The keys of a file that `age-keygen` made: a line each, `#` for comments.
    ///
    /// # Errors
    /// When it cannot be read, or has a line that is no key. No key is shown.
    pub fn read(path: &Path) -> Result<Identities, String> {
        let place = format!("--identity {}", path.display());
        let lines = lines(path).map_err(|error| format!("{place}: {error}"))?;
        let parse = |(number, line): (usize, String)| {
            let key = line.parse::<x25519::Identity>();
            key.map_err(|why| {
                format!("{place}: key {} is no identity of age, as age-keygen makes them: {why}", number + 1)
            })
        };
        lines.into_iter().enumerate().map(parse).collect::<Result<_, _>>().map(Identities)
    }

    /// Whether there is none.
    pub fn none(&self) -> bool {
        self.0.is_empty()
    }

    /// An encrypted file, to be read. What is read of it is as it was written; at the first piece that is not, reading fails.
    pub(crate) fn open(&self, file: File) -> Result<Source, String> {
        if self.none() {
            return Err("it is encrypted: --identity FILE decrypts it".to_owned());
        }
        let sealed = age::Decryptor::new(file).map_err(|error| told(&error))?;
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        sealed
            .decrypt(identities)
            .map(|reader| Source::Sealed(Box::new(reader)))
            .map_err(|error| told(&error))
    }
}

impl Sink {
    /// Ends the file, and has it written.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Sink::Plain(file) => file,
            Sink::Sealed(writer) => writer.finish()?,
        }
        .sync_all()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Plain(file) => file.write(bytes),
            Sink::Sealed(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Plain(file) => file.flush(),
            Sink::Sealed(writer) => writer.flush(),
        }
    }
}

impl Read for Source {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(file) => file.read(bytes),
            Source::Sealed(reader) => reader.read(bytes),
        }
    }
}

fn lines(path: &Path) -> io::Result<Vec<String>> {
    let text = std::fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(io::Error::other("it has no key"));
    }
    Ok(lines)
}

fn told(error: &age::DecryptError) -> String {
    match error {
        age::DecryptError::NoMatchingKeys => {
            "none of the identities is of those that it was encrypted for: --identity has to name another file".to_owned()
        }
        age::DecryptError::Io(error) => format!("it cannot be read: {error}"),
        other => format!("it is damaged, or no file of age: {other}"),
    }
}
