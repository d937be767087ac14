//! The catalog: what a gateway serves, read from a descriptor set. Services, rpcs, routes and access rules, checked, in
//! one immutable snapshot. Pure: must not contain a runtime, I/O, a clock, or the name of any service.
//!
//! Rpcs are annotated with the options `natsgateway.v1.route` and `natsgateway.v1.access`. Everything that is wrong
//! with them is reported at once, as [`Findings`].
//!
//! ```
//! use catalog::Catalog;
//! # use protox::file::{File, FileResolver, GoogleFileResolver};
//!
//! let proto = r#"
//!     syntax = "proto3";
//!     package bookstore.v1;
//!     import "natsgateway/v1/access.proto";
//!     import "natsgateway/v1/route.proto";
//!
//!     service Books {
//!       rpc GetBook(GetBookRequest) returns (Book) {
//!         option idempotency_level = NO_SIDE_EFFECTS;
//!         option (natsgateway.v1.access) = {scope: "books.read"};
//!         option (natsgateway.v1.route) = {subject: "books.get" queue_group: "books" retries: 2};
//!       }
//!     }
//!     message GetBookRequest { string book_id = 1; }
//!     message Book { string title = 1; }
//! "#;
//! # let mut pool = protox::prost_reflect::DescriptorPool::new();
//! # for name in ["google/protobuf/descriptor.proto", "google/protobuf/duration.proto"] {
//! #     let file = GoogleFileResolver::new().open_file(name)?;
//! #     pool.add_file_descriptor_proto(file.file_descriptor_proto().clone())?;
//! # }
//! # for (name, source) in [
//! #     ("natsgateway/v1/access.proto", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/natsgateway/v1/access.proto"))),
//! #     ("natsgateway/v1/route.proto", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/natsgateway/v1/route.proto"))),
//! #     ("bookstore.proto", proto),
//! # ] {
//! #     pool.add_file_descriptor_proto(File::from_source(name, source)?.file_descriptor_proto().clone())?;
//! # }
//! # let descriptors = pool.encode_to_vec();
//! // As written by `buf build -o` or `protoc --include_imports -o`.
//! let catalog = Catalog::builder(&descriptors).build()?;
//!
//! let route = catalog.route("/bookstore.v1.Books/GetBook").ok_or("no route")?;
//! assert_eq!((route.subject.as_str(), route.queue_group.as_str()), ("books.get", "books"));
//! assert_eq!(route.codec.request(b"\x0a\x03b-7")?, br#"{"bookId":"b-7"}"#);
//!
//! let rule = catalog.rule("/bookstore.v1.Books/GetBook").ok_or("denied to everybody")?;
//! assert_eq!(rule.scope().map(|scope| &**scope), Some("books.read"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod access;
mod breaking;
mod builder;
mod duration;
mod finding;
mod join;
mod kind;
mod metadata;
mod options;
mod route;
mod rpc;
mod snapshot;
mod subject;
#[cfg(test)]
mod tests;

pub use access::{Requirement, Rule};
pub use builder::Builder;
pub use finding::{Finding, Findings};
pub use kind::{Durable, Kind, Receipt, Replies, Subscription};
pub use metadata::{Metadata, MetadataKey};
pub use route::{Encoding, Envelope, Route};
pub use rpc::{Idempotency, Rpc, Service};
pub use snapshot::Catalog;
pub use subject::{Subject, SubjectError, covers, overlap};
pub use transcode::{Codec, CodecError};
