//! Encrypted files in the age format (age-encryption.org/v1), written and read in pieces of 64 KiB. Must not depend on
//! their contents.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use age::stream::{StreamReader, StreamWriter};
use age::x25519;

/// The suffix of an encrypted file's name.
pub(crate) const SUFFIX: &str = ".age";

/// The recipients that files are encrypted for; without any, files are not encrypted.
#[derive(Clone, Default)]
pub struct Recipients(Vec<x25519::Recipient>);

/// The identities (private keys) that files are decrypted with.
#[derive(Default)]
pub struct Identities(Vec<x25519::Identity>);

/// A file being written, encrypted or not.
pub(crate) enum Sink {
    Plain(File),
    Sealed(Box<StreamWriter<File>>),
}

/// A file being read, encrypted or not.
pub(crate) enum Source {
    Plain(File),
    Sealed(Box<StreamReader<File>>),
}

impl Recipients {
    /// Reads public keys (`age1…`). The holder of any one of them can decrypt alone.
    ///
    /// # Errors
    /// A key is invalid, or a file of keys (one per line, `#` for comments) cannot be read or contains none.
    pub fn read(keys: &[String], files: &[impl AsRef<Path>]) -> Result<Recipients, String> {
        let mut found = Vec::new();
        let parse = |text: &str, place: &str| {
            let key = text.parse::<x25519::Recipient>();
            key.map_err(|why| format!("{place} {text:?} is not an age recipient (age1ql3z…): {why}"))
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

    /// Whether there are no recipients.
    pub(crate) fn none(&self) -> bool {
        self.0.is_empty()
    }

    /// Wraps a file to encrypt it for them. It is complete only after `finish`.
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
    /// Reads the keys of a file made by `age-keygen`: one per line, `#` for comments.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not a key. No key is shown.
    pub fn read(path: &Path) -> Result<Identities, String> {
        let place = format!("--identity {}", path.display());
        let lines = lines(path).map_err(|error| format!("{place}: {error}"))?;
        let parse = |(number, line): (usize, String)| {
            let key = line.parse::<x25519::Identity>();
            key.map_err(|why| {
                format!("{place}: key {} is not an age identity as made by age-keygen: {why}", number + 1)
            })
        };
        lines.into_iter().enumerate().map(parse).collect::<Result<_, _>>().map(Identities)
    }

    /// Whether there are no identities.
    pub fn none(&self) -> bool {
        self.0.is_empty()
    }

    /// Opens an encrypted file. Every piece that is read is authenticated; reading fails at the first that was
    /// modified.
    pub(crate) fn open(&self, file: File) -> Result<Source, String> {
        if self.none() {
            return Err("it is encrypted: decrypt it with --identity FILE".to_owned());
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
    /// Finishes the file and syncs it.
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
        return Err(io::Error::other("it contains no key"));
    }
    Ok(lines)
}

fn told(error: &age::DecryptError) -> String {
    match error {
        age::DecryptError::NoMatchingKeys => {
            "it is not encrypted for any of the identities: --identity must name another file".to_owned()
        }
        age::DecryptError::Io(error) => format!("it cannot be read: {error}"),
        other => format!("it is damaged or not an age file: {other}"),
    }
}
