//! Reads the sources of a catalog: proto files, which are compiled here, and descriptor sets. Must not decide what is
//! served, and must not watch anything.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let file = folder.path().join("books.proto");
//! std::fs::write(&file, r#"
//!     syntax = "proto3";
//!     package bookstore.v1;
//!     import "natsgateway/v1/route.proto";
//!     service Books {
//!       rpc GetBook(GetBookRequest) returns (Book) {
//!         option (natsgateway.v1.route) = {subject: "books.get"};
//!       }
//!     }
//!     message GetBookRequest { string book_id = 1; }
//!     message Book { string title = 1; }
//! "#)?;
//! let options = catalog_sources::Options { proto: vec![file], ..Default::default() };
//! let [books] = &options.read()?[..] else { panic!("one source") };
//! assert_eq!(books.routes()[0].subject.as_str(), "books.get");
//! # Ok(())
//! # }
//! ```

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod compile;
pub mod embedded;
mod fingerprint;
mod sets;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalog::Catalog;
use clap::Args;
pub use fingerprint::Fingerprint;

/// Where contracts are read from, in addition to what is compiled in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Options {
    /// Proto files to serve, separated by commas: every rpc with a route is an rpc of this gateway
    #[arg(long, env = "GW_PROTO", value_delimiter = ',', value_name = "FILE")]
    pub proto: Vec<PathBuf>,
    /// Folders below which the files of --proto and their imports lie, separated by commas; default: each file's own
    /// folder
    #[arg(long, env = "GW_PROTO_PATH", value_delimiter = ',', value_name = "FOLDER")]
    pub proto_path: Vec<PathBuf>,
    /// Descriptor sets to serve, separated by commas, as `buf build -o` or `protoc --include_imports -o` write them; of
    /// a folder, every file
    #[arg(long, env = "GW_DESCRIPTOR_SET", value_delimiter = ',', value_name = "FILE|FOLDER")]
    pub descriptor_set: Vec<PathBuf>,
}

/// Everything that is wrong with the sources: at least one problem. Displayed as one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<String>);

/// An encoded set, and its file, if it was given as one.
type LoadedSet = (Option<PathBuf>, Vec<u8>);

impl Options {
    /// Whether no source is given.
    pub fn is_empty(&self) -> bool {
        self.proto.is_empty() && self.descriptor_set.is_empty()
    }

    /// Reads and checks every source: the proto files as one, and each descriptor set. Blocks while it reads files.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, with its file and line where they are known: a file that cannot be read or compiled, and
    /// what a catalog refuses ([`catalog::Builder::build`]), rpcs without a route among it.
    pub fn read(&self) -> Result<Vec<Arc<Catalog>>, Problems> {
        let (sets, mut problems) = self.load();
        let mut catalogs = Vec::new();
        sets.iter().for_each(|(file, set)| take(file.as_deref(), set, &mut catalogs, &mut problems));
        if problems.is_empty() { Ok(catalogs) } else { Err(Problems(problems)) }
    }

    /// The encoded descriptor set of every source, as [`Options::read`] has them: that of the proto files, and each that
    /// is given. They are not checked. Blocks while it reads files.
    ///
    /// # Errors
    ///
    /// Each file that cannot be read or compiled.
    pub fn sets(&self) -> Result<Vec<Vec<u8>>, Problems> {
        let (sets, problems) = self.load();
        if problems.is_empty() {
            Ok(sets.into_iter().map(|(_, set)| set).collect())
        } else {
            Err(Problems(problems))
        }
    }

    /// The sets, with the files of those that are given, and what could not be read.
    fn load(&self) -> (Vec<LoadedSet>, Vec<String>) {
        let (mut loaded, mut problems) = (Vec::new(), Vec::new());
        if !self.proto.is_empty() {
            match compile::compile(&self.proto, &self.proto_path) {
                Ok(set) => loaded.push((None, set)),
                Err(problem) => problems.push(problem),
            }
        } else if !self.proto_path.is_empty() {
            problems.push("--proto-path is given, but no proto file: add --proto FILE".to_owned());
        }
        for place in &self.descriptor_set {
            match sets::read(place) {
                Ok(sets) => loaded.extend(sets.into_iter().map(|(file, set)| (Some(file), set))),
                Err(problem) => problems.push(problem),
            }
        }
        (loaded, problems)
    }
}

/// Adds the catalog of one descriptor set, or what is wrong with it. Lines of proto files begin with their names; those
/// of a set with the set's.
fn take(file: Option<&Path>, set: &[u8], catalogs: &mut Vec<Arc<Catalog>>, problems: &mut Vec<String>) {
    match Catalog::builder(set).routed().build() {
        Ok(catalog) => catalogs.push(catalog),
        Err(findings) => problems.extend(findings.iter().map(|finding| match file {
            Some(file) => format!("{}: {finding}", file.display()),
            None => finding.to_string(),
        })),
    }
}

impl Problems {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}
