//! The catalog of the contract agrees with the generated code: the same routes, and the same payloads.

use std::sync::Arc;

use catalog::{Catalog, Codec as _, Encoding, Route};
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use transcode::{JsonCodec, Repetition};

use crate::route::ALL;

/// Random messages per route.
const MESSAGES: u64 = 300;

fn contract() -> Arc<Catalog> {
    Catalog::new(crate::DESCRIPTORS).unwrap_or_else(|findings| panic!("{findings}"))
}

#[test]
fn the_catalog_has_the_routes_of_the_generated_code() {
    let catalog = contract();
    assert_eq!(catalog.routes().len(), ALL.len());
    for typed in ALL {
        let route = catalog.route(typed.path).unwrap();
        assert_eq!((route.service.as_str(), route.rpc.as_str()), (typed.service, typed.rpc));
        assert_eq!((route.subject.as_str(), route.queue_group.as_str()), (typed.subject, typed.queue_group));
        assert_eq!(
            (route.timeout, route.retries, route.budget()),
            (typed.timeout, typed.retries, typed.budget())
        );
        assert_eq!((route.repeatable, route.internal), (typed.repeatable, typed.internal));
        assert_eq!(route.content_type(), typed.content_type());
    }
}

#[test]
fn generic_and_generated_codecs_write_and_read_the_same_payloads() {
    let catalog = contract();
    for typed in ALL {
        let route = catalog.route(typed.path).unwrap();
        let (input, output) = messages(&catalog, route);
        // Writes replies as a service would.
        let service = JsonCodec::new(output.clone(), output.clone(), Repetition::Never);
        for seed in 1..=MESSAGES {
            let mut random = Random(seed);
            let request = random.message(&input).encode_to_vec();
            let (generic, generated) = (route.codec.request(&request), (typed.request)(&request));
            assert_eq!(generic.unwrap(), generated.unwrap(), "{}, seed {seed}", typed.path);
            assert_eq!(
                route.codec.repeatable(&request),
                (typed.repeats)(&request),
                "{}, seed {seed}",
                typed.path
            );
            let reply = random.message(&output).encode_to_vec();
            let payload = match route.encoding {
                Encoding::Json => service.request(&reply).unwrap(),
                Encoding::Protobuf => reply.clone(),
            };
            assert_eq!((typed.reply)(&payload).unwrap(), reply, "{}, seed {seed}", typed.path);
            assert_eq!(route.codec.reply(&payload).unwrap(), reply, "{}, seed {seed}", typed.path);
        }
    }
}

fn messages(catalog: &Catalog, route: &Route) -> (MessageDescriptor, MessageDescriptor) {
    let rpc = catalog.rpc(&route.path).unwrap();
    let message = |name: &str| catalog.descriptors()[0].get_message_by_name(name).unwrap();
    (message(&rpc.input), message(&rpc.output))
}

/// Messages by chance; the same seed makes the same message.
struct Random(u64);

impl Random {
    /// A number below `end`, by Steele's splitmix64.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn message(&mut self, descriptor: &MessageDescriptor) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        if descriptor.full_name() == "google.protobuf.Timestamp" {
            let seconds = self.below(4_000_000_000).cast_signed() - 1_000_000_000;
            message.set_field_by_name("seconds", Value::I64(seconds));
            message.set_field_by_name("nanos", Value::I32(500_000_000));
            return message;
        }
        for field in descriptor.fields() {
            if self.below(4) == 0 {
                continue;
            }
            let value = if field.is_list() {
                let count = self.below(4);
                Value::List((0..count).map(|_| self.value(&field)).collect())
            } else {
                self.value(&field)
            };
            message.set_field(&field, value);
        }
        message
    }

    fn value(&mut self, field: &FieldDescriptor) -> Value {
        let near = [0, 1, 2_147_483_647, self.below(1 << 31)];
        let number = near[usize::try_from(self.below(4)).unwrap()].cast_signed();
        match field.kind() {
            Kind::String => {
                let texts = ["", "lamp", "Äpfel \"und\" \\ Birnen", "\u{1}\n\u{2028}😀"];
                Value::String(texts[usize::try_from(self.below(4)).unwrap()].to_owned())
            }
            Kind::Bool => Value::Bool(self.below(2) == 1),
            Kind::Int32 => Value::I32(i32::try_from(number).unwrap()),
            Kind::Uint32 => Value::U32(u32::try_from(number).unwrap()),
            Kind::Int64 => Value::I64(number * -4_294_967_297),
            Kind::Enum(kind) => {
                let values: Vec<_> = kind.values().map(|value| value.number()).collect();
                Value::EnumNumber(values[usize::try_from(self.below(values.len() as u64)).unwrap()])
            }
            Kind::Message(message) => Value::Message(self.message(&message)),
            kind => panic!("the contract has no field of kind {kind:?} yet"),
        }
    }
}
