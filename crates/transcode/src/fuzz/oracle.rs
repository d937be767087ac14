//! A message converted by its plan and by the library's dynamic messages: what one makes of it, the other has to make.
//! Must not know where payloads come from.

use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor};
use serde_json::Value as Json;

use super::deliberate::{
    DIFFERENT_WIRE, REFUSED_JSON, REFUSED_WIRE, TAKEN_JSON, has_replaced, is_listed, is_read_differently,
};
use crate::plan::Plan;
use crate::to_wire::UnknownNames;
use crate::{CodecError, check, decode, dynamic, to_json, to_wire};

const LIMIT: usize = 64 << 20;

/// A message with its plan.
pub(crate) struct Subject {
    /// What is printed where the two differ.
    pub(crate) label: String,
    pub(crate) message: MessageDescriptor,
    plan: Plan,
}

type Converted = Result<Vec<u8>, CodecError>;

impl Subject {
    pub(crate) fn new(label: String, message: MessageDescriptor) -> Subject {
        let plan = Plan::of(&message).unwrap_or_else(|error| panic!("{label}: {error}"));
        Subject { label, message, plan }
    }

    /// The JSON of a message, by the plan.
    pub(crate) fn json(&self, wire: &[u8]) -> Converted {
        self.json_of(None, wire)
    }

    fn json_of(&self, field: Option<&FieldDescriptor>, wire: &[u8]) -> Converted {
        let field = field.and_then(|field| self.plan.root_field(field.number()));
        let json = to_json::convert(&self.plan, field, wire, LIMIT)?;
        assert!(json.steps <= 2 * wire.len() + 2, "{}: {} steps for {wire:?}", self.label, json.steps);
        Ok(json.text)
    }

    /// The message of a JSON text, by the plan.
    pub(crate) fn wire(&self, json: &[u8]) -> Converted {
        self.wire_of(None, json)
    }

    fn wire_of(&self, field: Option<&FieldDescriptor>, json: &[u8]) -> Converted {
        let field = field.and_then(|field| self.plan.root_field(field.number()));
        let wire = to_wire::convert(&self.plan, field, json, UnknownNames::LeaveOut, LIMIT)?;
        assert!(wire.steps <= json.len() + 2, "{}: {} steps for {}", self.label, wire.steps, text(json));
        Ok(wire.protobuf)
    }

    pub(crate) fn agree_on_json(&self, wire: &[u8], what: &str) {
        self.compare_json(self.json(wire), dynamic::to_json(&self.message, None, wire), wire, what);
        self.agree_on_encoding(wire, what);
    }

    /// What is passed on unchanged is what the library can read.
    fn agree_on_encoding(&self, wire: &[u8], what: &str) {
        let ours = check::check(&self.plan, wire).map_err(CodecError::from);
        let theirs = decode(&self.message, wire);
        let is_listed = |why: &str| is_listed(&REFUSED_WIRE, why);
        let agrees = match (&ours, &theirs) {
            (Ok(()), Ok(_)) | (Err(_), Err(_)) => true,
            (Err(ours), Ok(_)) => is_listed(ours.why()),
            (Ok(()), Err(_)) => false,
        };
        assert!(agrees, "{what}, {}: {ours:?}, {:?}\n{wire:?}", self.label, theirs.err());
    }

    /// The same, of one field alone.
    pub(crate) fn agree_on_body(&self, field: &FieldDescriptor, wire: &[u8]) {
        let ours = self.json_of(Some(field), wire);
        let theirs = dynamic::to_json(&self.message, Some(field), wire);
        // The library does not look at the form of the other fields.
        if ours.is_ok() || self.json(wire).is_ok() {
            self.compare_json(ours, theirs, wire, &format!("the body {}", field.name()));
        }
    }

    fn compare_json(&self, ours: Converted, theirs: Converted, wire: &[u8], what: &str) {
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                let value = |json: &str| serde_json::from_str::<Json>(json).expect("it was written as JSON");
                let (one, other) = (String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs));
                let null = |json: &str| {
                    DIFFERENT_WIRE.iter().fold(json.to_owned(), |json, text| json.replace(text, "null"))
                };
                let is_same = value(&one) == value(&other) || value(&null(&one)) == value(&null(&other));
                assert!(is_same, "{what}, {}\n{}\n{}", self.label, text(&ours), text(&theirs));
            }
            (Err(_), Err(_)) => {}
            (Err(ours), Ok(theirs)) => {
                let is_listed = is_listed(&REFUSED_WIRE, ours.why());
                assert!(is_listed, "{what}, {}: refused: {ours}\n{}", self.label, text(&theirs));
            }
            (Ok(ours), Err(theirs)) => {
                let is_listed =
                    theirs.why().starts_with("failed to decode") && has_replaced(&self.message, wire);
                assert!(is_listed, "{what}, {}: taken: {}\n{theirs}", self.label, text(&ours));
            }
        }
    }

    pub(crate) fn agree_on_wire(&self, json: &[u8], what: &str) {
        self.compare_wire(self.wire(json), dynamic::to_wire(&self.message, None, json), json, what);
    }

    /// The same, of the value of one field alone.
    pub(crate) fn agree_on_value(&self, field: &FieldDescriptor, json: &[u8]) {
        let theirs = dynamic::to_wire(&self.message, Some(field), json);
        self.compare_wire(
            self.wire_of(Some(field), json),
            theirs,
            json,
            &format!("the value {}", field.name()),
        );
    }

    fn compare_wire(&self, ours: Converted, theirs: Converted, json: &[u8], what: &str) {
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                let is_same = self.is_same(&ours, &theirs) || is_read_differently(json);
                assert!(is_same, "{what}, {}: {ours:?}\n{theirs:?}\n{}", self.label, text(json));
            }
            (Err(_), Err(_)) => {}
            (Err(ours), Ok(_)) => {
                let is_listed = is_listed(&REFUSED_JSON, ours.why());
                assert!(is_listed, "{what}, {}: refused: {ours}\n{}", self.label, text(json));
            }
            (Ok(_), Err(theirs)) => {
                let is_listed = is_listed(&TAKEN_JSON, theirs.why());
                assert!(is_listed, "{what}, {}: taken: {theirs}\n{}", self.label, text(json));
            }
        }
    }

    /// The same message; NaN is the same as NaN.
    pub(crate) fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        let read = |wire| {
            DynamicMessage::decode(self.message.clone(), wire)
                .unwrap_or_else(|error| panic!("{}: {error}: {wire:?}", self.label))
        };
        let json = |wire| -> Option<Json> {
            serde_json::from_slice(&dynamic::to_json(&self.message, None, wire).ok()?).ok()
        };
        read(one) == read(other) || json(one).is_some_and(|one| Some(one) == json(other))
    }
}

/// The beginning of a text that is printed.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(2_000).collect()
}
