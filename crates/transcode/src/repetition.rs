//! Whether a request may be sent again. Must not know how often, nor when.

use prost_reflect::{FieldDescriptor, MessageDescriptor};

/// Which requests of an rpc may be sent twice with the effect of sending them once.
#[derive(Debug, Clone)]
pub enum Repetition {
    /// None.
    Never,
    /// All.
    Always,
    /// Those that have this field set to something other than its default: it identifies the request.
    Keyed(FieldDescriptor),
}

impl Repetition {
    /// Whether this request may be sent again. No for bytes that are not a `message`.
    pub(crate) fn allows(&self, message: &MessageDescriptor, request: &[u8]) -> bool {
        if matches!(self, Repetition::Never) {
            return false;
        }
        let Ok(request) = super::decode(message, request) else { return false };
        match self {
            Repetition::Never => false,
            Repetition::Always => true,
            Repetition::Keyed(field) => {
                request.has_field(field) && !request.get_field(field).is_default(&field.kind())
            }
        }
    }
}
