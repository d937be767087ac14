//! Any bytes as message or payload, held against dynamic messages. Run by the fuzzers in fuzz/, and on their corpus in
//! every test run. Its samples are what Python's `json_format` is asked about.

mod deliberate;
pub(crate) mod oracle;
mod protos;
pub(crate) mod random;
mod samples;
mod words;

use std::sync::LazyLock;

use prost_reflect::FieldDescriptor;

use crate::dynamic;
use oracle::Subject;
use random::{Random, compile, records};

pub use samples::{Sample, Samples, Text, is_same, of_corpus, of_seed};

/// The most edits of a text.
const EDITS: usize = 8;

static SUBJECTS: LazyLock<Vec<Subject>> = LazyLock::new(|| {
    let pool = compile(protos::PROTO);
    let subject = |name: &&str| {
        let message = pool.get_message_by_name(name).unwrap_or_else(|| panic!("there is no {name}"));
        Subject::new((*name).to_owned(), message)
    };
    protos::ROOTS.iter().map(subject).collect()
});

/// What a fuzzer's bytes stand for. The first byte chooses the message, the second the case.
struct Input<'a> {
    subject: &'static Subject,
    case: u8,
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn new(data: &'a [u8]) -> Option<Input<'a>> {
        let &[message, case, ref rest @ ..] = data else { return None };
        Some(Input { subject: &SUBJECTS[usize::from(message) % SUBJECTS.len()], case: case % 6, rest })
    }

    /// A field of the message, chosen by the next byte. None if its JSON has no fields.
    fn field(&self) -> Option<(FieldDescriptor, &'a [u8])> {
        let (field, rest) = self.rest.split_first()?;
        let fields: Vec<FieldDescriptor> = self.subject.message.fields().collect();
        let is_known = self.subject.message.package_name() == "google.protobuf";
        (!is_known).then(|| (fields[usize::from(*field) % fields.len()].clone(), rest))
    }
}

/// Both directions of the JSON codec: what is read or refused is so by dynamic messages, but where plans differ on
/// purpose; what is written is read again, and then written as it was; the steps are bounded by the length.
///
/// # Panics
///
/// If a property does not hold.
pub fn transcode(data: &[u8]) {
    let Some(input) = Input::new(data) else { return };
    let (subject, rest) = (input.subject, input.rest);
    match input.case {
        0 => {
            subject.agree_on_json(rest, "a message");
            if let Ok(json) = subject.json(rest) {
                survives(subject, &json);
            }
        }
        1 => text(subject, rest),
        2 => shuffled(subject, rest),
        3 => {
            if let Some((field, rest)) = input.field() {
                subject.agree_on_body(&field, rest);
            }
        }
        4 => {
            if let Some((field, rest)) = input.field()
                && std::str::from_utf8(rest).is_ok()
            {
                subject.agree_on_value(&field, rest);
            }
        }
        _ => edited(subject, rest),
    }
}

fn text(subject: &Subject, json: &[u8]) {
    if std::str::from_utf8(json).is_err() {
        assert!(subject.wire(json).is_err(), "{json:?} is not UTF-8, and was read");
        return;
    }
    subject.agree_on_wire(json, "a text");
    if let Ok(wire) = subject.wire(json) {
        let json = subject.json(&wire).unwrap_or_else(|error| panic!("{error}: {wire:?} of a text"));
        survives(subject, &json);
    }
}

/// JSON that was written is read, and then written as it was.
fn survives(subject: &Subject, json: &[u8]) {
    let shown = String::from_utf8_lossy(json);
    let wire = subject.wire(json).unwrap_or_else(|error| panic!("{error}: {shown}"));
    let again = subject.json(&wire).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(String::from_utf8_lossy(&again), shown);
}

/// The records of a message in a sequence that the first byte chooses.
fn shuffled(subject: &Subject, data: &[u8]) {
    let Some((seed, message)) = data.split_first() else { return };
    let Some(mut records) = records(message) else { return };
    Random::new((*seed).into()).0.shuffle(&mut records);
    subject.agree_on_json(&records.concat(), "shuffled records");
}

/// The JSON of a message with some bytes replaced, inserted or removed. The first byte says how many; each edit has two
/// bytes, for its place and for what is put there.
fn edited(subject: &Subject, data: &[u8]) {
    let Some((edits, data)) = data.split_first() else { return };
    let Some((edits, message)) = data.split_at_checked(usize::from(*edits) % EDITS * 2) else { return };
    let Ok(mut json) = dynamic::to_json(&subject.message, None, message) else { return };
    for edit in edits.chunks_exact(2) {
        let (place, byte) = (usize::from(edit[0]) % json.len().max(1), edit[1]);
        match byte {
            // No text has these.
            0x80.. if json.len() > 1 => drop(json.remove(place)),
            0..0x20 => json.insert(place, b" {}[]\",:0123456789.-+eEntfsl\\u/_"[usize::from(byte)]),
            byte => json[place] = byte,
        }
    }
    text(subject, &json);
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzers_found_and_began_with_still_holds() {
        crate::replay::each("transcode", super::transcode);
    }
}
