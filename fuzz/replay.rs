//! Runs a check over the corpus of a fuzzer: its seeds and findings. Part of the tests of each crate that has such
//! checks.

use std::fs;
use std::path::Path;

/// Runs a check over each file of `fuzz/corpus/NAME`, and names the file that fails.
pub(crate) fn each(name: &str, check: fn(&[u8])) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = here.ancestors().map(|folder| folder.join("fuzz/corpus").join(name));
    let folder = folders.find(|folder| folder.is_dir()).expect("fuzz/corpus has a folder of this name");
    let files: Vec<_> = fs::read_dir(folder).expect("it can be read").flatten().collect();
    assert!(files.len() > 5, "the corpus of {name} has too few files");
    for file in files {
        let data = fs::read(file.path()).expect("a file can be read");
        let outcome = std::panic::catch_unwind(|| check(&data));
        assert!(outcome.is_ok(), "{} does not pass", file.path().display());
    }
}
