//! Replies that say what was stored, in the protobuf encoding. Must not know how it was stored.

use catalog::Receipt;
use nats::PubAck;

/// The wire types of fields.
const VARINT: u64 = 0;
const LENGTH: u64 = 2;

/// The reply of a unary rpc.
pub(super) fn unary(fields: &Receipt, ack: &PubAck) -> Vec<u8> {
    let mut reply = Vec::new();
    text(&mut reply, fields.stream, &ack.stream);
    number(&mut reply, fields.sequence, ack.sequence);
    number(&mut reply, fields.duplicate, ack.duplicate.into());
    reply
}

/// The reply to a stream of messages of which so many are stored.
pub(super) fn stream(fields: &Receipt, stored: u64, last: Option<&PubAck>) -> Vec<u8> {
    let mut reply = Vec::new();
    text(&mut reply, fields.stream, last.map_or("", |last| &last.stream));
    number(&mut reply, fields.sequence, last.map_or(0, |last| last.sequence));
    number(&mut reply, fields.stored, stored);
    reply
}

/// A string; nothing for an empty one.
fn text(reply: &mut Vec<u8>, field: Option<u32>, text: &str) {
    let Some(field) = field.filter(|_| !text.is_empty()) else { return };
    varint(reply, u64::from(field) << 3 | LENGTH);
    varint(reply, text.len() as u64);
    reply.extend_from_slice(text.as_bytes());
}

/// A `uint64` or a `bool`; nothing for 0.
fn number(reply: &mut Vec<u8>, field: Option<u32>, number: u64) {
    let Some(field) = field.filter(|_| number > 0) else { return };
    varint(reply, u64::from(field) << 3 | VARINT);
    varint(reply, number);
}

fn varint(reply: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        reply.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    reply.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_has_the_fields_that_the_reply_has_and_no_defaults() {
        let ack = PubAck { stream: "BOOKS".to_owned(), sequence: 300, duplicate: true };
        let fields = Receipt { stream: Some(1), sequence: Some(2), duplicate: Some(16), stored: None };
        assert_eq!(unary(&fields, &ack), b"\x0a\x05BOOKS\x10\xac\x02\x80\x01\x01");
        let new = PubAck { duplicate: false, ..ack };
        assert_eq!(unary(&Receipt { stream: None, ..fields }, &new), b"\x10\xac\x02");
        assert_eq!(unary(&Receipt::default(), &new), b"");
        let last = PubAck { sequence: u64::MAX, ..new };
        let reply = unary(&Receipt { sequence: Some(1), ..Receipt::default() }, &last);
        assert_eq!(prost::encoding::decode_varint(&mut &reply[1..]), Ok(u64::MAX));
    }
}
