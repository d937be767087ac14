//! Reads descriptor sets from files and folders. Must not decode them.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The largest set, in bytes. The contract of the order system has 40 KB.
const SET: u64 = 16 << 20;
/// The most sets of one folder.
const SETS: usize = 1_000;

/// The descriptor set of a file, or those of a folder by name. Hidden files are left out, and folders in it: Kubernetes
/// keeps a mounted volume's data in them, and links to it.
pub(crate) fn read(place: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    files(place)?.into_iter().map(|file| load(&file).map(|set| (file, set))).collect()
}

/// The file itself, or the files of a folder by name.
pub(crate) fn files(place: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("{}: {error}", place.display());
    if !place.is_dir() {
        return Ok(vec![place.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(place).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(format!("the folder {} has no file: put descriptor sets there", place.display()));
    }
    if files.len() > SETS {
        return Err(format!("the folder {} has {} files: at most {SETS}", place.display(), files.len()));
    }
    files.sort_unstable();
    Ok(files)
}

fn load(file: &Path) -> Result<Vec<u8>, String> {
    let failed = |error| format!("{}: {error}", file.display());
    let mut set = Vec::new();
    let read = fs::File::open(file).map_err(failed)?.take(SET + 1).read_to_end(&mut set).map_err(failed)?;
    if read as u64 > SET {
        return Err(format!("{}: larger than {} MiB, the most that is read", file.display(), SET >> 20));
    }
    Ok(set)
}
