//! Transcoding: converts gRPC messages to and from the payloads of NATS services. Pure: must not contain a runtime, I/O,
//! a clock, or any message of its own. It knows neither routes nor subjects.
//!
//! A [`Codec`] converts the requests and replies of one rpc. [`JsonCodec`] and [`ProtobufCodec`] do so for any rpc, by
//! the descriptors of its messages. A program that has generated types may implement the trait with those.
//!
//! ```
//! use transcode::{Codec, JsonCodec, Repetition};
//! # use protox::file::File;
//! # use protox::prost_reflect::DescriptorPool;
//!
//! let proto = r#"
//!     syntax = "proto3";
//!     package bookstore.v1;
//!     message GetBookRequest { string book_id = 1; }
//!     message Book { string title = 1; int32 pages = 2; }
//! "#;
//! # let file = File::from_source("bookstore.proto", proto)?;
//! # let mut pool = DescriptorPool::new();
//! # pool.add_file_descriptor_proto(file.file_descriptor_proto().clone())?;
//! let message = |name| pool.get_message_by_name(name).ok_or("no such message");
//! let codec =
//!     JsonCodec::new(message("bookstore.v1.GetBookRequest")?, message("bookstore.v1.Book")?, Repetition::Always);
//!
//! // Field 1 is the string "b-7".
//! assert_eq!(codec.request(b"\x0a\x03b-7")?, br#"{"bookId":"b-7"}"#);
//! // Fields that are unknown are ignored.
//! assert_eq!(codec.reply(br#"{"title":"Emma","isbn":"1"}"#)?, b"\x0a\x04Emma");
//!
//! let error = codec.reply(br#"{"title":"Emma","pages":"many"}"#).unwrap_err();
//! assert_eq!(error.path(), "pages");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod calendar;
mod check;
mod dynamic;
mod error;
mod fault;
mod field;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod json;
mod keys;
mod plan;
mod protobuf;
mod record;
mod repetition;
#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
mod swar;
#[cfg(test)]
mod tests;
mod to_json;
mod to_wire;

use std::fmt;

pub use error::CodecError;
pub use field::{FieldPath, FieldPathError, Scalar};
pub use json::{BodyError, JsonCodec, ReadReply};
pub use protobuf::ProtobufCodec;
pub use repetition::Repetition;

use prost_reflect::{DynamicMessage, MessageDescriptor};

/// Converts the messages of one rpc: between their protobuf encoding, which gRPC clients send and receive, and their
/// payloads on NATS.
///
/// An implementation is pure: the same bytes always have the same result, and nothing waits.
///
/// ```
/// use transcode::{Codec, CodecError};
///
/// /// Requests and replies are messages with one string, field 1, of at most 127 bytes; payloads are its text.
/// #[derive(Debug)]
/// struct Text;
///
/// impl Codec for Text {
///     fn request(&self, protobuf: &[u8]) -> Result<Vec<u8>, CodecError> {
///         match protobuf {
///             [] => Ok(Vec::new()),
///             [0x0a, length, text @ ..] if text.len() == usize::from(*length) => Ok(text.to_vec()),
///             _ => Err(CodecError::new("text", "is not one short string")),
///         }
///     }
///
///     fn reply(&self, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
///         let length = u8::try_from(payload.len()).ok().filter(|length| *length < 128);
///         let length = length.ok_or_else(|| CodecError::new("text", "is longer than 127 bytes"))?;
///         Ok([&[0x0a, length], payload].concat())
///     }
///
///     fn repeatable(&self, _request: &[u8]) -> bool {
///         false
///     }
/// }
///
/// assert_eq!(Text.request(b"\x0a\x03Ann")?, b"Ann");
/// assert_eq!(Text.reply(&[b'x'; 200]).unwrap_err().path(), "text");
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec: fmt::Debug + Send + Sync {
    /// Converts the protobuf encoding of a request to its payload.
    ///
    /// # Errors
    ///
    /// If the bytes are not an encoding of the rpc's request message, or the message has no form as a payload, such as
    /// a timestamp after the year 9999. Nothing was sent: the request was not delivered.
    fn request(&self, protobuf: &[u8]) -> Result<Vec<u8>, CodecError>;

    /// Converts the payload of a reply to its protobuf encoding.
    ///
    /// # Errors
    ///
    /// If the payload is not a form of the rpc's reply message: the service violates the contract. The request was
    /// delivered.
    fn reply(&self, payload: &[u8]) -> Result<Vec<u8>, CodecError>;

    /// Whether this request, in its protobuf encoding, may be sent again after an attempt that may have been delivered.
    /// No for bytes that are not a request.
    fn repeatable(&self, request: &[u8]) -> bool;
}

fn decode(message: &MessageDescriptor, protobuf: &[u8]) -> Result<DynamicMessage, CodecError> {
    DynamicMessage::decode(message.clone(), protobuf).map_err(|error| CodecError::new("", &error.to_string()))
}
