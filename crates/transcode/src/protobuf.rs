//! Payloads in the protobuf encoding. They are validated and passed on unchanged, with fields that are unknown.

use std::fmt;
use std::sync::Arc;

use prost_reflect::MessageDescriptor;

use crate::check::check;
use crate::json::Plans;
use crate::plan::Plan;
use crate::{Codec, CodecError, Repetition, decode};

/// The codec of an rpc whose payloads are in the protobuf encoding. Messages are checked by tables, which are compiled when
/// they are first needed; those that contain proto2, groups or `google.protobuf.Any` by the library's dynamic messages.
#[derive(Clone)]
pub struct ProtobufCodec {
    request: MessageDescriptor,
    reply: MessageDescriptor,
    repetition: Repetition,
    plans: Arc<Plans>,
}

impl ProtobufCodec {
    /// A codec for these messages.
    pub fn new(
        request: MessageDescriptor,
        reply: MessageDescriptor,
        repetition: Repetition,
    ) -> ProtobufCodec {
        ProtobufCodec { request, reply, repetition, plans: Arc::default() }
    }
}

impl Codec for ProtobufCodec {
    fn request(&self, protobuf: &[u8]) -> Result<Vec<u8>, CodecError> {
        passed(self.plans.request(&self.request), &self.request, protobuf)?;
        Ok(protobuf.to_vec())
    }

    fn reply(&self, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
        passed(self.plans.reply(&self.reply), &self.reply, payload)?;
        Ok(payload.to_vec())
    }

    fn repeatable(&self, request: &[u8]) -> bool {
        self.repetition.allows(&self.request, request)
    }
}

/// Checks the encoding of a message.
fn passed(plan: Option<&Plan>, message: &MessageDescriptor, protobuf: &[u8]) -> Result<(), CodecError> {
    match plan {
        Some(plan) => Ok(check(plan, protobuf)?),
        None => decode(message, protobuf).map(drop),
    }
}

impl fmt::Debug for ProtobufCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = f.debug_struct("ProtobufCodec");
        names.field("request", &self.request.full_name()).field("reply", &self.reply.full_name());
        names.finish_non_exhaustive()
    }
}
