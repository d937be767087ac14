//! Positions in a stream, as tokens that clients hand back, and in the messages that they get. Pure.

use bytes::{BufMut, Bytes, BytesMut};

use crate::token::{Foreign, Seal, hash};

/// The kind of these tokens.
const KIND: u8 = b's';

/// Makes and reads the tokens of one stream's messages on one subject.
#[derive(Debug, Clone)]
pub(super) struct Positions {
    seal: Seal,
    /// The number of the field of a message that its token goes into.
    field: Option<u32>,
}

/// A position in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Which stream of this name it is.
    pub(super) identity: u64,
    /// All messages up to here were delivered.
    pub(super) sequence: u64,
}

impl Positions {
    pub(super) fn new(stream: &str, filter: &str, field: Option<u32>) -> Positions {
        // Neither has a space.
        Positions { seal: Seal::new(format!("{stream} {filter}")), field }
    }

    /// The token of a position.
    pub(super) fn token(&self, position: Position) -> String {
        self.seal.seal(KIND, [position.identity, position.sequence])
    }

    /// The position in a token.
    pub(super) fn read(&self, token: &str) -> Result<Position, Foreign> {
        let [identity, sequence] = self.seal.open(KIND, token)?;
        Ok(Position { identity, sequence })
    }

    /// A message in the protobuf encoding, with its token behind it: the last value of a field counts.
    pub(super) fn mark(&self, message: Vec<u8>, position: Position) -> Bytes {
        let Some(field) = self.field else { return message.into() };
        let token = self.token(position);
        let mut marked = BytesMut::with_capacity(message.len() + token.len() + 7);
        marked.put_slice(&message);
        prost::encoding::string::encode(field, &token, &mut marked);
        marked.freeze()
    }
}

/// The number that stands for a stream's identity.
pub(super) fn identity(identity: &str) -> u64 {
    hash([identity])
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position { identity: 7, sequence: 42 };

    #[test]
    fn a_token_is_of_one_stream_and_one_subject() {
        let positions = Positions::new("BOOKS", "books.new", None);
        let token = positions.token(POSITION);
        assert_eq!(positions.read(&token), Ok(POSITION));
        for (stream, filter) in [("BOOKS", "books.old"), ("BOOKS2", "books.new"), ("BOOKSbooks", "new")] {
            assert_eq!(Positions::new(stream, filter, None).read(&token), Err(Foreign), "{stream} {filter}");
        }
    }

    #[test]
    fn the_token_stands_behind_what_the_payload_has_in_its_field() {
        let positions = Positions::new("BOOKS", "books.new", Some(16));
        let marked = positions.mark(vec![0x82, 0x01, 1, b'x'], POSITION);
        let token = positions.token(POSITION);
        let wanted = [&[0x82, 0x01, 1, b'x', 0x82, 0x01, token.len() as u8], token.as_bytes()].concat();
        assert_eq!(marked, wanted);
        assert_eq!(Positions::new("BOOKS", "books.new", None).mark(vec![1], POSITION), vec![1]);
    }
}
