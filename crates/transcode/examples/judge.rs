//! Writes messages with their JSON into a folder, and reads what Python's `json_format` has made of them. Must not judge
//! itself. See `.ci/judge`.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use transcode::fuzz::{Sample, Samples, Text, is_same, of_corpus, of_seed};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading.
            drop(writeln!(io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["write", folder, corpus, first, protos] => {
            write(Path::new(folder), Path::new(corpus), first.parse()?, protos.parse()?)
        }
        ["read", folder] => read(Path::new(folder)),
        _ => Err("usage: judge write FOLDER CORPUS SEED PROTOS | judge read FOLDER".into()),
    }
}

/// For each proto a `.set`, its descriptors, and a `.samples` with a line for each message: its name, its encoding in
/// base64 and its JSON, separated by tabs, which JSON in one line does not have. In a `.texts`, each line has a message's
/// name, a text in base64, and `=` with the message that it is read as, in base64, or `!` with the reason why it is refused.
fn write(folder: &Path, corpus: &Path, first: u64, protos: u64) -> Result<(), Box<dyn Error>> {
    let inputs: Vec<Vec<u8>> =
        fs::read_dir(corpus)?.map(|file| fs::read(file?.path())).collect::<Result<_, _>>()?;
    let mut written = 0;
    let mut one = |name: String, samples: Samples| {
        let mut lines = String::new();
        for Sample { message, wire, json } in &samples.messages {
            writeln!(lines, "{message}\t{}\t{json}", STANDARD.encode(wire)).map_err(io::Error::other)?;
        }
        fs::write(folder.join(format!("{name}.samples")), lines)?;
        let mut lines = String::new();
        for Text { message, json, read } in &samples.texts {
            let read = match read {
                Ok(wire) => format!("={}", STANDARD.encode(wire)),
                Err(why) => format!("!{why}"),
            };
            writeln!(lines, "{message}\t{}\t{read}", STANDARD.encode(json)).map_err(io::Error::other)?;
        }
        written += samples.messages.len();
        fs::write(folder.join(format!("{name}.texts")), lines)?;
        fs::write(folder.join(format!("{name}.set")), samples.set)
    };
    one("corpus".to_owned(), of_corpus(inputs.iter().map(Vec::as_slice)))?;
    for seed in first..first + protos {
        one(format!("seed-{seed}"), of_seed(seed))?;
    }
    if written < 10 { Err("there are too few messages".into()) } else { Ok(()) }
}

/// Reads each `.printed`, which has the form of a `.samples`.
fn read(folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut failed = String::new();
    let mut count = 0;
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "printed") {
            continue;
        }
        let set = fs::read(path.with_extension("set"))?;
        for line in fs::read_to_string(&path)?.lines() {
            let mut parts = line.splitn(3, '\t');
            let (Some(message), Some(wire), Some(json)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(format!("{}: a line has too few parts", path.display()).into());
            };
            let sample =
                Sample { message: message.to_owned(), wire: STANDARD.decode(wire)?, json: json.to_owned() };
            count += 1;
            if let Err(error) = is_same(&set, &sample) {
                writeln!(failed, "{}: {message}: {json}\nis read as {error}", path.display())?;
            }
        }
    }
    match (count, failed.as_str()) {
        (0..10, _) => Err("there are too few texts to read".into()),
        (_, "") => Ok(()),
        _ => Err(failed.into()),
    }
}
