//! Messages with the JSON that plans make of them, for a judge that is another program. Must not say what is right.

use prost::Message as _;
use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::oracle::Subject;
use super::random::{Random, compile};
use super::{Input, protos};

/// Messages of each random proto.
const MESSAGES: usize = 20;

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

impl Sample {
    fn new(subject: &Subject, wire: Vec<u8>) -> Option<Sample> {
        let json = String::from_utf8(subject.json(&wire).ok()?).ok()?;
        Some(Sample { message: subject.message.full_name().to_owned(), wire, json })
    }
}

/// Messages of a proto by chance, with the encoding of its `FileDescriptorSet`.
///
/// # Panics
///
/// If the proto cannot be compiled.
pub fn of_seed(seed: u64) -> (Vec<u8>, Vec<Sample>) {
    let mut random = Random::new(seed);
    let pool = compile(&random.proto());
    let message = pool.get_message_by_name("t.M0").expect("each proto has it");
    let subject = Subject::new(format!("seed {seed}"), message);
    let messages = (0..MESSAGES).map(|_| random.message(&subject.message, 0).encode_to_vec());
    let samples = messages.filter_map(|wire| Sample::new(&subject, wire)).collect();
    (pool.encode_to_vec(), samples)
}

/// The messages of a fuzzer's inputs, and those of their texts, with the encoding of their `FileDescriptorSet`.
pub fn of_corpus<'a>(inputs: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<Sample>) {
    let sample = |data| {
        let input = Input::new(data)?;
        let wire = match input.case {
            0 => input.rest.to_vec(),
            1 => input.subject.wire(input.rest).ok()?,
            _ => return None,
        };
        Sample::new(input.subject, wire)
    };
    (compile(protos::PROTO).encode_to_vec(), inputs.filter_map(sample).collect())
}

/// Whether this JSON is read as this message of the set. The error says what it is read as.
///
/// # Errors
///
/// If it is another message, or no JSON of one.
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
