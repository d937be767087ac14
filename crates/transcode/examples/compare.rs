//! Compares the time that plans and dynamic messages take for the same messages, and prints the ratio. Must not be run
//! beside other work: it measures.
//!
//! ```sh
//! cargo run --release -p transcode --example compare
//! ```

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use protox::file::File;
use transcode::{Codec, JsonCodec, Repetition};

const PROTO: &str = r#"
    syntax = "proto3";
    package compare;
    message List { repeated Item items = 1; }
    message Item { string product_id = 1; uint32 quantity = 2; string warehouse = 3; }
"#;
/// Measurements of each, in turn.
const SAMPLES: usize = 301;
/// How long a measurement takes.
const SAMPLE: Duration = Duration::from_micros(300);

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let mut pool = DescriptorPool::new();
    let file = File::from_source("compare.proto", PROTO)?;
    pool.add_file_descriptor_proto(file.file_descriptor_proto().clone())?;
    let list = pool.get_message_by_name("compare.List").ok_or("no such message")?;
    let codec = JsonCodec::new(list.clone(), list.clone(), Repetition::Never);
    let mut out = std::io::stdout().lock();
    writeln!(out, "items  direction  plan ns  dynamic ns  ratio")?;
    for items in [3, 23] {
        let json = json(items);
        let wire = codec.reply(json.as_bytes())?;
        let rows = [
            ("to JSON", medians(|| codec.request(&wire).is_ok(), || dynamic_json(&list, &wire).is_some())),
            (
                "to wire",
                medians(|| codec.reply(json.as_bytes()).is_ok(), || dynamic_wire(&list, &json).is_some()),
            ),
        ];
        for (direction, (plan, dynamic)) in rows {
            writeln!(
                out,
                "{items:>5}  {direction:>9}  {plan:>7.0}  {dynamic:>10.0}  {:>5.2}",
                plan / dynamic
            )?;
        }
    }
    Ok(())
}

fn json(items: usize) -> String {
    let item =
        |n: usize| format!(r#"{{"productId":"product-{n}","quantity":{},"warehouse":"north"}}"#, n + 1);
    let items: Vec<String> = (0..items).map(item).collect();
    format!(r#"{{"items":[{}]}}"#, items.join(","))
}

fn dynamic_json(message: &MessageDescriptor, wire: &[u8]) -> Option<Vec<u8>> {
    const WRITE: SerializeOptions = SerializeOptions::new().skip_default_fields(false);
    let message = DynamicMessage::decode(message.clone(), wire).ok()?;
    let mut json = serde_json::Serializer::new(Vec::with_capacity(512));
    message.serialize_with_options(&mut json, &WRITE).ok()?;
    Some(json.into_inner())
}

fn dynamic_wire(message: &MessageDescriptor, json: &str) -> Option<Vec<u8>> {
    const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);
    let mut json = serde_json::Deserializer::from_str(json);
    let message = DynamicMessage::deserialize_with_options(message.clone(), &mut json, &READ).ok()?;
    Some(message.encode_to_vec())
}

/// The medians of both in nanoseconds, measured in turn so that what disturbs one disturbs the other.
fn medians(one: impl Fn() -> bool, other: impl Fn() -> bool) -> (f64, f64) {
    let (rounds_of_one, rounds_of_other) = (rounds(&one), rounds(&other));
    let mut samples = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        samples.0.push(time(&one, rounds_of_one));
        samples.1.push(time(&other, rounds_of_other));
    }
    (median(samples.0), median(samples.1))
}

/// How many calls fill a measurement.
fn rounds(call: impl Fn() -> bool) -> u32 {
    let mut rounds = 1;
    while time(&call, rounds) * f64::from(rounds) < SAMPLE.as_nanos() as f64 {
        rounds *= 2;
    }
    rounds
}

/// Nanoseconds of a call.
fn time(call: impl Fn() -> bool, rounds: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..rounds {
        assert!(black_box(call()), "a conversion failed");
    }
    start.elapsed().as_nanos() as f64 / f64::from(rounds)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
