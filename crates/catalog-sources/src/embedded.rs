//! The protos of the gateway's options, for imports and for other compilers. Must not read files.

use std::path::{Path, PathBuf};
use std::{fs, io};

use protox::Error;
use protox::file::{File, FileResolver};

/// Each file's name in an import, and its text.
pub const FILES: [(&str, &str); 2] = [
    (
        "natsgateway/v1/access.proto",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/natsgateway/v1/access.proto")),
    ),
    (
        "natsgateway/v1/route.proto",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/natsgateway/v1/route.proto")),
    ),
];

/// The same under their former names, for imports of older protos.
const FORMER: [(&str, &str); 2] = [
    (
        "nats/gateway/v1/access.proto",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/nats/gateway/v1/access.proto")),
    ),
    (
        "nats/gateway/v1/route.proto",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/nats/gateway/v1/route.proto")),
    ),
];

/// Writes the files below a folder, for protoc and buf, and returns their paths. What is there is overwritten.
///
/// # Errors
/// If a folder cannot be made, or a file cannot be written.
pub fn export(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let write = |(name, text): (&str, &str)| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(&path, text)?;
        Ok(path)
    };
    FILES.into_iter().map(write).collect()
}

/// Resolves imports of these files.
pub(crate) struct Embedded;

impl FileResolver for Embedded {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        match FILES.iter().chain(&FORMER).find(|(known, _)| *known == name) {
            Some((name, text)) => File::from_source(name, text),
            None => Err(Error::file_not_found(name)),
        }
    }
}
