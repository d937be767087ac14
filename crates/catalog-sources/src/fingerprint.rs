//! Tells whether sources have changed, without compiling them. Must not decide when to look.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf, absolute};

use crate::{Options, sets};

/// The most proto files that are followed: the given ones and their imports.
const FILES: usize = 2_000;
/// The most of a proto file that is read, in bytes.
const PROTO: u64 = 4 << 20;

/// The state of the files of some sources: another state is another fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Options {
    /// The state of all files: of proto files and their imports the contents, of descriptor sets size, time and identity of
    /// the files that their links end at. Files that are missing or cannot be read have a state too. Blocks while it reads.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut state = DefaultHasher::new();
        protos(self, &mut state);
        for place in &self.descriptor_set {
            match sets::files(place) {
                Ok(files) => files.iter().for_each(|file| stamp(file, &mut state)),
                Err(problem) => problem.hash(&mut state),
            }
        }
        Fingerprint(state.finish())
    }
}

fn protos(options: &Options, state: &mut DefaultHasher) {
    let whole = |path: &PathBuf| absolute(path).unwrap_or_else(|_| path.clone());
    let files: Vec<_> = options.proto.iter().map(whole).collect();
    let folders: Vec<_> = match &options.proto_path[..] {
        [] => files.iter().filter_map(|file| file.parent().map(Path::to_owned)).collect(),
        given => given.iter().map(whole).collect(),
    };
    let (mut known, mut next) = (BTreeSet::new(), VecDeque::from(files));
    while let Some(file) = next.pop_front() {
        if known.len() >= FILES || !known.insert(file.clone()) {
            continue;
        }
        file.hash(state);
        let mut text = Vec::new();
        let read = fs::File::open(&file).and_then(|file| file.take(PROTO).read_to_end(&mut text));
        read.map_err(|error| error.kind()).hash(state);
        text.hash(state);
        for import in imports(&String::from_utf8_lossy(&text)) {
            // Those of the gateway itself are in no folder.
            next.extend(folders.iter().map(|folder| folder.join(import)).filter(|path| path.is_file()));
        }
    }
}

/// The names that a proto file imports. A line that only looks like an import does no harm.
fn imports(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim_start).filter_map(|line| line.strip_prefix("import"));
    lines.filter_map(|rest| rest.split(['"', '\'']).nth(1))
}

fn stamp(file: &Path, state: &mut DefaultHasher) {
    file.hash(state);
    match fs::metadata(file) {
        Ok(data) => {
            (data.dev(), data.ino(), data.len(), data.mtime(), data.mtime_nsec()).hash(state);
            (data.ctime(), data.ctime_nsec()).hash(state);
        }
        Err(error) => error.kind().hash(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_a_file_of_an_import_and_of_a_link_is_seen_and_a_look_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (proto, import) = (folder.path().join("a.proto"), folder.path().join("b.proto"));
        let (sets, data) = (folder.path().join("sets"), folder.path().join("data"));
        fs::write(&proto, "import public \"b.proto\";").unwrap();
        for folder in [&sets, &data] {
            fs::create_dir(folder).unwrap();
        }
        for number in ["1", "2"] {
            fs::write(data.join(number), "same").unwrap();
        }
        let link = |to: &str| {
            let _ = fs::remove_file(sets.join("set.binpb"));
            std::os::unix::fs::symlink(data.join(to), sets.join("set.binpb")).unwrap();
        };
        link("1");
        let options =
            Options { proto: vec![proto.clone()], descriptor_set: vec![sets.clone()], ..Options::default() };
        let changes: [&dyn Fn(); 5] = [
            &|| fs::write(&import, "// 1").unwrap(),
            &|| fs::write(&import, "// 2").unwrap(),
            &|| link("2"),
            &|| fs::write(sets.join("other.binpb"), "").unwrap(),
            &|| fs::remove_file(&proto).unwrap(),
        ];
        for (number, change) in changes.iter().enumerate() {
            let before = options.fingerprint();
            assert_eq!(before, options.fingerprint());
            change();
            assert_ne!(before, options.fingerprint(), "change {number}");
        }
    }
}
