//! Messages with the JSON that plans make of them, and JSON with what plans read, for a judge that is another program.
//! Must not say what is right.

use prost::Message as _;
use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::oracle::Subject;
use super::random::{Random, compile};
use super::{Input, protos};

/// Messages of each random proto, and texts for each of them.
const MESSAGES: usize = 20;
const TEXTS: usize = 3;

/// What another program is to judge, of one proto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples {
    /// The encoding of the proto's `FileDescriptorSet`.
    pub set: Vec<u8>,
    /// Messages that have JSON.
    pub messages: Vec<Sample>,
    /// JSON that may be that of a message.
    pub texts: Vec<Text>,
}

/// A message and its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The full name of the message.
    pub message: String,
    /// The message's protobuf encoding.
    pub wire: Vec<u8>,
    /// Its proto3 JSON.
    pub json: String,
}

/// A text, and what it is read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The full name of the message.
    pub message: String,
    /// What may be its JSON.
    pub json: String,
    /// The message's protobuf encoding, or why the text is refused.
    pub read: Result<Vec<u8>, String>,
}

impl Sample {
    fn new(subject: &Subject, wire: Vec<u8>) -> Option<Sample> {
        let json = String::from_utf8(subject.json(&wire).ok()?).ok()?;
        Some(Sample { message: subject.message.full_name().to_owned(), wire, json })
    }
}

impl Text {
    fn new(subject: &Subject, json: String) -> Text {
        let read = subject.wire(json.as_bytes()).map_err(|error| error.why().to_owned());
        Text { message: subject.message.full_name().to_owned(), json, read }
    }
}

/// Messages and texts of a proto by chance.
///
/// # Panics
///
/// If the proto cannot be compiled.
pub fn of_seed(seed: u64) -> Samples {
    let mut random = Random::new(seed);
    let pool = compile(&random.proto());
    let message = pool.get_message_by_name("t.M0").expect("each proto has it");
    let subject = Subject::new(format!("seed {seed}"), message);
    let messages = (0..MESSAGES).map(|_| random.message(&subject.message, 0).encode_to_vec());
    let messages = messages.filter_map(|wire| Sample::new(&subject, wire)).collect();
    let mut text = || {
        let (field, value) = random.member(&subject.message);
        let name = serde_json::Value::from(field.json_name());
        Text::new(&subject, format!("{{{name}:{value}}}"))
    };
    let texts = (0..MESSAGES * TEXTS).map(|_| text()).collect();
    Samples { set: pool.encode_to_vec(), messages, texts }
}

/// The messages and texts of a fuzzer's inputs.
pub fn of_corpus<'a>(inputs: impl Iterator<Item = &'a [u8]>) -> Samples {
    let (mut messages, mut texts) = (Vec::new(), Vec::new());
    for input in inputs.filter_map(Input::new) {
        let text = match input.case {
            0 => {
                messages.extend(Sample::new(input.subject, input.rest.to_vec()));
                continue;
            }
            1 => String::from_utf8(input.rest.to_vec()),
            _ => continue,
        };
        let Ok(json) = text else { continue };
        let text = Text::new(input.subject, json);
        if let Ok(wire) = &text.read {
            messages.extend(Sample::new(input.subject, wire.clone()));
        }
        texts.push(text);
    }
    Samples { set: compile(protos::PROTO).encode_to_vec(), messages, texts }
}

/// Whether this JSON is read as this message of the set.
///
/// # Errors
///
/// What it is read as, if that is another message, or why it is refused.
pub fn is_same(set: &[u8], sample: &Sample) -> Result<(), String> {
    let message = message_of(set, &sample.message).ok_or("the set has no such message")?;
    let subject = Subject::new(sample.message.clone(), message);
    let wire = subject.wire(sample.json.as_bytes()).map_err(|error| error.to_string())?;
    if subject.is_same(&wire, &sample.wire) {
        return Ok(());
    }
    Err(subject
        .json(&wire)
        .map_or_else(|error| error.to_string(), |json| String::from_utf8_lossy(&json).into_owned()))
}

fn message_of(set: &[u8], name: &str) -> Option<MessageDescriptor> {
    DescriptorPool::decode(set).ok()?.get_message_by_name(name)
}
