//! Compiles proto files into a descriptor set. Must not read options.

use std::path::{Path, PathBuf, absolute};

use miette::Diagnostic as _;
use protox::Compiler;
use protox::file::{ChainFileResolver, GoogleFileResolver, IncludeFileResolver};

use crate::embedded::Embedded;

/// The encoded descriptor set of these files and their imports, with lines and comments.
pub(crate) fn compile(files: &[PathBuf], folders: &[PathBuf]) -> Result<Vec<u8>, String> {
    let files =
        files.iter().map(|file| usable(file, Path::is_file, "file")).collect::<Result<Vec<_>, _>>()?;
    let folders = match folders {
        [] => files.iter().filter_map(|file| file.parent().map(Path::to_owned)).collect(),
        given => given
            .iter()
            .map(|folder| usable(folder, Path::is_dir, "folder"))
            .collect::<Result<Vec<_>, _>>()?,
    };
    let mut resolver = ChainFileResolver::new();
    // The gateway's own copies come first: the options are read as these define them.
    resolver.add(Embedded);
    resolver.add(GoogleFileResolver::new());
    folders.into_iter().for_each(|folder| {
        resolver.add(IncludeFileResolver::new(folder));
    });
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_source_info(true).include_imports(true);
    for file in &files {
        compiler.open_file(file).map_err(|error| told(file, &error))?;
    }
    Ok(compiler.encode_file_descriptor_set())
}

/// The absolute path of a file or folder that is there.
fn usable(path: &Path, is: fn(&Path) -> bool, kind: &str) -> Result<PathBuf, String> {
    match absolute(path) {
        Ok(path) if is(&path) => Ok(path),
        Ok(path) if path.exists() => Err(format!("{} is not a {kind}", path.display())),
        Ok(path) => Err(format!("there is no {kind} {}", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// An error of the compiler with its place, and what to change where the compiler does not say.
fn told(file: &Path, error: &protox::Error) -> String {
    // The library tells file, line and column in this form alone.
    let mut text = format!("{error:?}");
    if let Some(cause) = error.diagnostic_source() {
        text += &format!(": {cause}");
    }
    if let Some(help) = error.help() {
        text += &format!("; {help}");
    }
    let place = match error.file() {
        Some(name) if !text.starts_with(name) => format!("{name}: "),
        Some(_) => String::new(),
        None => format!("{}: ", file.display()),
    };
    let remedy = match error.is_file_not_found() {
        true => "; give the folder that its path begins in with --proto-path",
        false => "",
    };
    format!("{place}{text}{remedy}")
}
