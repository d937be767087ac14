//! Payloads in the protobuf encoding. They are validated and passed on unchanged, with fields that are unknown.

use std::fmt;

use prost_reflect::MessageDescriptor;

use crate::{Codec, CodecError, Repetition, decode};

/// The codec of an rpc whose payloads are in the protobuf encoding.
#[derive(Clone)]
pub struct ProtobufCodec {
    request: MessageDescriptor,
    reply: MessageDescriptor,
    repetition: Repetition,
}

impl ProtobufCodec {
    /// A codec for these messages.
    pub fn new(
        request: MessageDescriptor,
        reply: MessageDescriptor,
        repetition: Repetition,
    ) -> ProtobufCodec {
        ProtobufCodec { request, reply, repetition }
    }
}

impl Codec for ProtobufCodec {
    fn request(&self, protobuf: &[u8]) -> Result<Vec<u8>, CodecError> {
        decode(&self.request, protobuf)?;
        Ok(protobuf.to_vec())
    }

    fn reply(&self, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
        decode(&self.reply, payload)?;
        Ok(payload.to_vec())
    }

    fn repeatable(&self, request: &[u8]) -> bool {
        self.repetition.allows(&self.request, request)
    }
}

impl fmt::Debug for ProtobufCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = f.debug_struct("ProtobufCodec");
        names.field("request", &self.request.full_name()).field("reply", &self.reply.full_name());
        names.finish_non_exhaustive()
    }
}
