//! Protos and messages by chance: the same seed makes the same ones. Must not know how they are converted.

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _,
    Value,
};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::words::WORDS;

/// How many messages a proto has; they may contain each other and themselves.
const MESSAGES: usize = 4;
const SCALARS: [&str; 15] = [
    "bool", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
    "sfixed64", "float", "double", "string", "bytes",
];
/// How many of the scalars can be packed, and how many of them can be keys; so can strings.
const PACKABLE: usize = 13;
const KEYS: usize = 11;
const KNOWN: [&str; 16] = [
    "Timestamp",
    "Duration",
    "FieldMask",
    "Empty",
    "Struct",
    "Value",
    "ListValue",
    "DoubleValue",
    "FloatValue",
    "Int64Value",
    "UInt64Value",
    "Int32Value",
    "UInt32Value",
    "BoolValue",
    "StringValue",
    "BytesValue",
];
const HEAD: &str = r#"
    syntax = "proto3";
    package t;
    import "google/protobuf/duration.proto";
    import "google/protobuf/empty.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    enum Sparse { SPARSE_ZERO = 0; SPARSE_ONE = 1; SPARSE_MANY = 7; SPARSE_BELOW = -3; }
    enum Dense { DENSE_ZERO = 0; DENSE_ONE = 1; DENSE_TWO = 2; }
"#;

pub(crate) struct Random(pub(crate) fastrand::Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(fastrand::Rng::with_seed(seed))
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: u32) -> bool {
        self.0.u32(0..times) == 0
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.0.usize(0..choices.len())]
    }

    /// A field, and a value that may be right for it or wrong, as JSON.
    pub(crate) fn member(&mut self, message: &MessageDescriptor) -> (FieldDescriptor, String) {
        let fields: Vec<FieldDescriptor> = message.fields().collect();
        let (field, word) = (fields[self.0.usize(0..fields.len())].clone(), self.of(&WORDS));
        let is_list = field.is_list() && (word == "null" || self.0.bool());
        (field, if is_list { format!("[{word}]") } else { word.to_owned() })
    }

    /// The source of a proto with the messages `t.M0` and so on.
    pub(crate) fn proto(&mut self) -> String {
        let mut proto = HEAD.to_owned();
        for message in 0..MESSAGES {
            proto += &format!("message M{message} {{\n");
            let mut number = 0;
            for field in 0..self.0.u32(1..14) {
                number += match self.0.u32(0..12) {
                    0 => self.0.u32(1..40),
                    1 => self.0.u32(1..4000),
                    _ => 1,
                };
                let name = self.of(&["field_", "f", "some_rather_long_field_name_", "x_y"]);
                let (declaration, numbers) = self.declaration(&format!("{name}{field}"), number);
                proto += &declaration;
                number += numbers;
            }
            proto += "}\n";
        }
        proto
    }

    /// A field or a oneof, and how many numbers more than one it takes.
    fn declaration(&mut self, name: &str, number: u32) -> (String, u32) {
        let kind = self.kind();
        let declared = match self.0.u32(0..10) {
            0 | 1 => format!("repeated {kind} {name} = {number};\n"),
            2 => {
                let kind = self.of(&SCALARS[..PACKABLE]);
                format!("repeated {kind} {name} = {number} [packed = {}];\n", self.0.bool())
            }
            3 => {
                let key = if self.once_in(3) { "string" } else { self.of(&SCALARS[..KEYS]) };
                format!("map<{key}, {kind}> {name} = {number};\n")
            }
            4 => format!("optional {kind} {name} = {number};\n"),
            5 => {
                let members: String = (0..3)
                    .map(|member| format!("{} {name}_member{member} = {};\n", self.kind(), number + member))
                    .collect();
                return (format!("oneof o_{name} {{\n{members}}}\n"), 2);
            }
            6 => format!("{kind} {name} = {number} [json_name = \"j\\\"{name}\"];\n"),
            _ => format!("{kind} {name} = {number};\n"),
        };
        (declared, 0)
    }

    fn kind(&mut self) -> String {
        match self.0.u32(0..10) {
            0 => format!("M{}", self.0.usize(0..MESSAGES)),
            1 => self.of(&["Sparse", "Dense", "google.protobuf.NullValue"]).to_owned(),
            2 | 3 => format!("google.protobuf.{}", self.of(&KNOWN)),
            _ => self.of(&SCALARS).to_owned(),
        }
    }

    pub(crate) fn message(&mut self, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        match descriptor.full_name() {
            "google.protobuf.Timestamp" | "google.protobuf.Duration" => self.time(&mut message),
            "google.protobuf.FieldMask" => {
                let paths = (0..self.0.usize(0..3)).map(|_| self.of(&["a", "some_path.b_c", "x.y"]));
                let paths = paths.map(|path| Value::String(path.to_owned())).collect();
                message.set_field_by_name("paths", Value::List(paths));
            }
            "google.protobuf.DoubleValue" => {
                message.set_field_by_name("value", Value::F64(f64::from(self.0.i32(..)) / 64.0));
            }
            "google.protobuf.FloatValue" => {
                message.set_field_by_name("value", Value::F32(self.0.i16(..).into()));
            }
            "google.protobuf.Value" => {
                let choices = if depth > 4 { 4 } else { 6 };
                let fields: Vec<_> = descriptor.fields().collect();
                let field = fields[self.0.usize(0..choices)].clone();
                let value = match field.kind() {
                    Kind::Double => Value::F64(f64::from(self.0.i32(..)) / 64.0),
                    kind => self.value(&kind, depth),
                };
                message.set_field(&field, value);
            }
            _ => {
                for field in descriptor.fields() {
                    if self.0.u32(0..10) < 7u32.saturating_sub(depth) {
                        let value = self.field(&field, depth);
                        message.set_field(&field, value);
                    }
                }
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        let count = if self.once_in(20) { 12 } else { self.0.usize(0..4) };
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
                let entries = (0..count).map(|_| (self.key(&key), self.value(&value, depth)));
                Value::Map(entries.collect())
            }
            kind if field.is_list() => Value::List((0..count).map(|_| self.value(&kind, depth)).collect()),
            kind => self.value(&kind, depth),
        }
    }

    fn key(&mut self, kind: &Kind) -> MapKey {
        match self.value(kind, 0) {
            Value::Bool(key) => MapKey::Bool(key),
            Value::I32(key) => MapKey::I32(key),
            Value::I64(key) => MapKey::I64(key),
            Value::U32(key) => MapKey::U32(key),
            Value::U64(key) => MapKey::U64(key),
            Value::String(key) => MapKey::String(key),
            value => panic!("{value:?} is no key"),
        }
    }

    fn value(&mut self, kind: &Kind, depth: u32) -> Value {
        match kind {
            Kind::Bool => Value::Bool(self.0.bool()),
            Kind::String => Value::String(self.string()),
            Kind::Bytes => {
                let length = self.0.usize(0..40);
                Value::Bytes((0..length).map(|_| self.0.u8(..)).collect::<Vec<u8>>().into())
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.number() as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.number()),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.number() as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.number() as u64),
            Kind::Float => Value::F32(self.float() as f32),
            Kind::Double => Value::F64(self.float()),
            Kind::Enum(kind) => {
                let numbers: Vec<i32> = kind.values().map(|value| value.number()).collect();
                let is_known = numbers.len() == 1 || !self.once_in(30);
                Value::EnumNumber(if is_known { self.of(&numbers) } else { self.0.i32(-9..99) })
            }
            Kind::Message(message) => Value::Message(self.message(message, depth + 1)),
        }
    }

    fn string(&mut self) -> String {
        let length = match self.0.u32(0..8) {
            0 => 0,
            1 => self.0.usize(0..300),
            2 => self.0.usize(14..19),
            _ => self.0.usize(0..24),
        };
        let is_odd = self.once_in(4);
        let odd = |random: &mut Random| match random.0.u32(0..6) {
            0 => char::from(random.0.u8(0..32)),
            1 => random.of(&['"', '\\', '/', '\u{7f}', 'é', '€', '😀', '\u{2028}']),
            _ => random.0.alphanumeric(),
        };
        (0..length).map(|_| if is_odd { odd(self) } else { self.0.alphanumeric() }).collect()
    }

    fn number(&mut self) -> i64 {
        match self.0.u32(0..6) {
            0 => 0,
            1 => self.0.i64(..),
            2 => self.0.i32(..).into(),
            3 => self.of(&[i64::MAX, i64::MIN, i32::MIN.into(), u32::MAX.into(), -1, 1]),
            _ => self.0.i64(-200..200),
        }
    }

    fn float(&mut self) -> f64 {
        match self.0.u32(0..8) {
            0 => 0.0,
            1 => f64::from_bits(self.0.u64(..)),
            2 => self.of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 5e-324, 1e15, 1e16, 1e17]),
            3 => self.0.i32(..).into(),
            _ => self.0.f64() * 1000.0,
        }
    }

    fn time(&mut self, message: &mut DynamicMessage) {
        let nanos = match self.0.u32(0..4) {
            0 => 0,
            1 => self.0.i32(0..1000) * 1_000_000,
            2 => self.0.i32(0..1_000_000) * 1000,
            _ => self.0.i32(0..1_000_000_000),
        };
        let (seconds, nanos) = if message.descriptor().name() == "Timestamp" {
            let seconds = match self.0.u32(0..4) {
                0 => self.0.i64(-62_135_596_800..=253_402_300_799),
                1 => self.of(&[-62_135_596_800, 253_402_300_799, 0, -1]),
                _ => self.0.i64(0..2_000_000_000),
            };
            (seconds, nanos)
        } else {
            let sign = self.of(&[1, -1]);
            let seconds = match self.0.u32(0..3) {
                0 => 0,
                1 => self.0.i64(0..315_576_000_000),
                _ => self.0.i64(0..100),
            };
            (seconds * i64::from(sign), nanos * sign)
        };
        message.set_field_by_name("seconds", Value::I64(seconds));
        message.set_field_by_name("nanos", Value::I32(nanos));
    }
}

/// Compiles a proto, which may import the well-known types.
pub(crate) fn compile(proto: &str) -> DescriptorPool {
    struct Source(String);
    impl FileResolver for Source {
        fn open_file(&self, name: &str) -> Result<File, protox::Error> {
            if name != "t.proto" {
                return Err(protox::Error::file_not_found(name));
            }
            File::from_source(name, &self.0)
        }
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(Source(proto.to_owned()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("t.proto").unwrap_or_else(|error| panic!("{error}\n{proto}"));
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).expect("it was compiled")
}

/// The records of a message, each with its tag; None if it has groups or is broken.
pub(crate) fn records(message: &[u8]) -> Option<Vec<&[u8]>> {
    let mut records = crate::record::Records { bytes: message, at: 0, end: message.len() };
    let mut found = Vec::new();
    while !records.is_at_end() {
        let from = records.at;
        let tag = records.tag().ok()?;
        records.value(tag & 7).ok()?;
        found.push(&message[from..records.at]);
    }
    Some(found)
}
