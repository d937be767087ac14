//! The two streams of a bucket. Must not read or write what is in them.

use async_nats::jetstream::stream::Config;
use nats::spec::{StreamMismatch, StreamSpec, durable};
use nats::{Connection, Streams};

use crate::name::BucketName;

/// How many changes of each name are kept.
pub const HISTORY: i64 = 64;

/// Creates what is missing of a bucket, with these replicas, and checks it.
///
/// # Errors
///
/// What is wrong with the server or a stream, as for [`Streams::open`]. A stream created before that stays.
pub async fn create(link: &Connection, name: BucketName, replicas: usize) -> Result<Streams, StreamMismatch> {
    Streams::open(link, &specs(name, replicas), &[], true).await
}

/// Neither lets a client delete by a header (roll-up): who may write cannot erase what was there.
fn specs(name: BucketName, replicas: usize) -> [StreamSpec; 2] {
    let spec = |stream, config| StreamSpec { name: stream, config, required: false, written: false };
    let pointers = Config {
        description: Some("Contracts of gateways: which set is active, by name".to_owned()),
        max_messages_per_subject: HISTORY,
        deny_delete: true,
        ..durable(name.pointers(), &[&name.keys()], replicas)
    };
    let objects = Config {
        description: Some("Contracts of gateways: descriptor sets, by digest".to_owned()),
        deny_delete: true,
        ..durable(name.objects(), &[&name.contents(">"), &name.metadata(">")], replicas)
    };
    [spec(name.pointers(), pointers), spec(name.objects(), objects)]
}
