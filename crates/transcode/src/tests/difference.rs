//! Plans against dynamic messages: random protos, random messages, shuffled, merged, broken and respelled.
//!
//! `TRANSCODE_SEED` sets the first seed, `TRANSCODE_PROTOS` the number of protos (30).

use prost::Message as _;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value as Json;

use crate::dynamic;
use crate::fuzz::oracle::{Subject, text};
use crate::fuzz::random::{Random, compile, records};

/// Messages of each proto.
const MESSAGES: usize = 12;
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn plans_agree_with_dynamic_messages_but_where_they_differ_on_purpose() {
    let first = setting("TRANSCODE_SEED", 1);
    for seed in first..first + setting("TRANSCODE_PROTOS", 30) {
        let mut random = Random::new(seed);
        let proto = random.proto();
        let message = compile(&proto).get_message_by_name("t.M0").unwrap();
        let subject = Subject::new(format!("seed {seed}"), message);
        for _ in 0..MESSAGES {
            subject.check(&mut random);
        }
    }
}

impl Subject {
    fn check(&self, random: &mut Random) {
        let wire = random.message(&self.message, 0).encode_to_vec();
        let Ok(json) = dynamic::to_json(&self.message, None, &wire) else {
            return self.agree_on_json(&wire, "a message that cannot be written");
        };
        self.round_trip(&wire);
        self.agree_on_json(&wire, "a message");
        self.body(random, &wire);
        let value: Json = serde_json::from_slice(&json).unwrap();
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        let proto = serde_json::to_vec(&respelled(&self.message, value.clone())).unwrap();
        for (text, what) in [(&json, "JSON"), (&pretty, "sorted JSON"), (&proto, "names of the proto")] {
            self.agree_on_wire(text, what);
        }
        self.shuffled(random, &wire);
        self.broken(random, &wire, &json);
        for _ in 0..6 {
            let (field, word) = random.member(&self.message);
            self.agree_on_value(&field, word.as_bytes());
            let name = serde_json::to_string(field.json_name()).unwrap();
            self.agree_on_wire(format!("{{{name}:{word}}}").as_bytes(), "a replaced value");
        }
    }

    /// A message that survives both ways.
    fn round_trip(&self, wire: &[u8]) {
        let json = self.json(wire).unwrap_or_else(|error| panic!("{}: {error}", self.label));
        let back =
            self.wire(&json).unwrap_or_else(|error| panic!("{}: {error}: {}", self.label, text(&json)));
        assert!(self.is_same(&back, wire), "{}, there and back: {}", self.label, text(&json));
    }

    fn shuffled(&self, random: &mut Random, wire: &[u8]) {
        let other = random.message(&self.message, 0).encode_to_vec();
        let (mut one, other) = (records(wire).unwrap(), records(&other).unwrap());
        random.0.shuffle(&mut one);
        self.agree_on_json(&one.concat(), "shuffled records");
        one.extend(other);
        self.agree_on_json(&one.concat(), "merged records");
        self.body(random, &one.concat());
        random.0.shuffle(&mut one);
        self.agree_on_json(&one.concat(), "shuffled and merged records");
    }

    fn body(&self, random: &mut Random, wire: &[u8]) {
        let fields: Vec<FieldDescriptor> = self.message.fields().collect();
        self.agree_on_body(&fields[random.0.usize(0..fields.len())], wire);
    }

    fn broken(&self, random: &mut Random, wire: &[u8], json: &[u8]) {
        let mut wire = wire.to_vec();
        for _ in 0..random.0.usize(1..3) {
            if !wire.is_empty() {
                let at = random.0.usize(0..wire.len());
                wire[at] = random.0.u8(..);
            }
        }
        self.agree_on_json(&wire, "a broken message");
        let mut json = json.to_vec();
        for _ in 0..random.0.usize(1..3) {
            let at = random.0.usize(0..json.len());
            let byte = random.of(b"{}[]\",:0123456789.-+eEtfn\\u ");
            match random.0.u32(0..3) {
                0 => json[at] = byte,
                1 if json.len() > 1 => drop(json.remove(at)),
                _ => json.insert(at, byte),
            }
        }
        if std::str::from_utf8(&json).is_ok() {
            self.agree_on_wire(&json, "broken JSON");
        }
    }
}

/// The same JSON with the names that fields have in the proto.
fn respelled(message: &MessageDescriptor, json: Json) -> Json {
    let Json::Object(members) = json else { return json };
    let respell = |(name, value): (String, Json)| {
        let field = message.get_field_by_json_name(&name).unwrap();
        let value = match (field.kind(), value) {
            (Kind::Message(inner), value) if !field.is_map() && inner.package_name() == "t" => match value {
                Json::Array(elements) => {
                    Json::Array(elements.into_iter().map(|element| respelled(&inner, element)).collect())
                }
                value => respelled(&inner, value),
            },
            (_, value) => value,
        };
        (field.name().to_owned(), value)
    };
    Json::Object(members.into_iter().map(respell).collect())
}
