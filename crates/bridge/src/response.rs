//! What the headers of a reply tell the caller, as far as the route lists it. Must not fail a call: what cannot be passed
//! on is left out and counted.

use std::sync::{Arc, OnceLock};

use async_nats::Message;
use catalog::Route;
use wire::Metadata;
use wire::metadata::{self, FIELD, ResponseMetadata};

/// The most bytes of initial metadata, and of trailers, as HTTP/2 counts them. With a status, which has less than 4 KiB,
/// they stay below the 8 KiB that client libraries accept.
const MOST: usize = 4 << 10;

/// A reply.
#[derive(Debug)]
pub struct Response {
    /// In the protobuf encoding.
    pub message: Vec<u8>,
    /// What else the caller gets.
    pub metadata: Option<Box<ResponseMetadata>>,
}

/// The trailers of a stream, once it has ended.
pub(crate) type Trailers = Arc<OnceLock<Metadata>>;

impl From<Vec<u8>> for Response {
    fn from(message: Vec<u8>) -> Response {
        Response { message, metadata: None }
    }
}

/// The metadata of a reply, one listed key after the other, and the number of values that cannot be passed on.
pub(crate) fn read(route: &Route, message: &Message) -> (ResponseMetadata, u64) {
    let (mut found, mut left_out) = (ResponseMetadata::default(), 0);
    let Some(headers) = &message.headers else { return (found, left_out) };
    let mut room = [MOST; 2];
    for listed in &route.metadata.reply {
        let key = listed.key();
        let mine = |(name, all)| Some((listed.matches(AsRef::<str>::as_ref(name))?, all));
        for (trailer, all) in headers.iter().filter_map(mine) {
            let (list, room) = match trailer {
                true => (&mut found.trailers, &mut room[1]),
                false => (&mut found.initial, &mut room[0]),
            };
            for header in all {
                let Some(values) = metadata::values(key, header.as_str().as_bytes()) else {
                    left_out += 1;
                    continue;
                };
                for value in values {
                    let Some(rest) = room.checked_sub(key.len() + value.len() + FIELD) else {
                        left_out += 1;
                        continue;
                    };
                    *room = rest;
                    list.push((key.into(), value.into()));
                }
            }
        }
    }
    (found, left_out)
}
