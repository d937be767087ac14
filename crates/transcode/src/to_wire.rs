//! Proto3 JSON to protobuf: a scanner that writes what it reads. Must not build values in memory, nor recurse but into
//! messages.

mod entries;
mod lengths;
mod lists;
mod numbers;
mod skip;
mod strings;
mod times;

use std::borrow::Cow;

use crate::fault::{DEPTH, Fault, Kind, Outcome, data, deeper};
use crate::plan::{Bits, Card, Field, Message, Op, Plan};

/// The least initial buffer in bytes; most messages fit into it.
const SPACE: usize = 256;

/// What to do with the name of an enum value that the contract does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownNames {
    /// Clients have to keep the contract.
    Refuse,
    /// A newer service may know more: its value is left out, and counted.
    LeaveOut,
}

/// What was written.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) protobuf: Vec<u8>,
    /// How many enum values were left out.
    pub(crate) unknown_names: u32,
    /// How many fields, elements and entries were read.
    #[cfg_attr(not(any(test, feature = "fuzz")), expect(dead_code, reason = "tests limit it"))]
    pub(crate) steps: usize,
}

/// Converts a JSON text to its message; or, if the text is the value of this field alone, to a message that has no other.
/// `limit` is the most bytes to write.
///
/// # Errors
///
/// If the text is not JSON, not a form of the plan's message, or if the message exceeds the limit.
pub(crate) fn convert(
    plan: &Plan,
    body: Option<usize>,
    json: &[u8],
    names: UnknownNames,
    limit: usize,
) -> Outcome<Wire> {
    if let Err(error) = std::str::from_utf8(json) {
        return Err(Fault::syntax("is not UTF-8", error.valid_up_to()));
    }
    let space = json.len().max(SPACE).min(limit);
    let mut reader = Reader {
        plan,
        bytes: json,
        at: 0,
        out: Vec::with_capacity(space),
        limit,
        names,
        unknown_names: 0,
        steps: 0,
    };
    reader.whitespace();
    reader.root(body)?;
    reader.whitespace();
    if reader.at != json.len() {
        return Err(Fault::syntax("goes on after the value", reader.at));
    }
    reader.step()?;
    Ok(Wire { protobuf: reader.out, unknown_names: reader.unknown_names, steps: reader.steps })
}

struct Reader<'a> {
    plan: &'a Plan,
    bytes: &'a [u8],
    at: usize,
    out: Vec<u8>,
    limit: usize,
    names: UnknownNames,
    unknown_names: u32,
    steps: usize,
}

/// What a value turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Value,
    /// The default of its type.
    Zero,
    /// Nothing: the value is to be left out.
    Nothing,
}

impl Written {
    #[inline]
    fn unless(is_zero: bool) -> Written {
        if is_zero { Written::Zero } else { Written::Value }
    }
}

/// Which fields of an object have been read, and which oneofs are set.
#[derive(Default)]
struct Seen {
    fields: Bits,
    oneofs: Bits,
}

impl<'a> Reader<'a> {
    /// The next byte; zero at the end, which is no part of JSON.
    #[inline]
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn whitespace(&mut self) {
        if self.peek() <= b' ' {
            while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
                self.at += 1;
            }
        }
    }

    /// Counts a field, an element or an entry.
    #[inline]
    fn step(&mut self) -> Outcome<()> {
        self.steps += 1;
        if self.out.len() > self.limit { data("is too large in protobuf") } else { Ok(()) }
    }

    /// A value of the wrong kind is here; or the text ends, or has what cannot begin a value.
    #[cold]
    fn mismatch<T>(&self, why: &str) -> Outcome<T> {
        match self.bytes.get(self.at) {
            Some(b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => data(why),
            Some(_) => Err(Fault::syntax("a value is missing", self.at)),
            None => Err(Fault::syntax("ends too early", self.at)),
        }
    }

    #[cold]
    fn syntax<T>(&self, why: &str) -> Outcome<T> {
        Err(Fault::syntax(why, self.at))
    }

    #[inline]
    fn literal(&mut self, word: &[u8]) -> Outcome<()> {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return self.syntax("has no such word");
        }
        self.at += word.len();
        Ok(())
    }

    /// After the opening bracket: whether the list or object is empty.
    #[inline]
    fn is_empty(&mut self, close: u8) -> bool {
        self.at += 1;
        self.whitespace();
        let is_empty = self.peek() == close;
        self.at += usize::from(is_empty);
        is_empty
    }

    /// After an element or member: whether it was the last.
    #[inline]
    fn is_last(&mut self, close: u8) -> Outcome<bool> {
        self.whitespace();
        let next = self.peek();
        if next != b',' && next != close {
            return self.syntax("expected a comma or the end of a list or object");
        }
        self.at += 1;
        if next == b',' {
            self.whitespace();
        }
        Ok(next == close)
    }

    #[inline]
    fn colon(&mut self) -> Outcome<()> {
        self.whitespace();
        if self.peek() != b':' {
            return self.syntax("expected a colon");
        }
        self.at += 1;
        self.whitespace();
        Ok(())
    }

    /// The root, or the value of one field of it. That is read as the member that it would be, so that it can be no more
    /// than one value.
    fn root(&mut self, body: Option<usize>) -> Outcome<()> {
        let plan = self.plan;
        match (plan.root, body) {
            (Op::Message(message), Some(index)) => {
                let table = plan.message(message);
                self.member(&table.fields[index], index, &mut Seen::default(), DEPTH)
                    .map_err(|fault| fault.under(table.name(index)))
            }
            (root, _) => self.message(root, DEPTH),
        }
    }

    /// A message without its length.
    fn message(&mut self, op: Op, depth: u32) -> Outcome<()> {
        let plan = self.plan;
        match op {
            Op::Message(message) => self.object(message, depth),
            Op::Alone(message) => match plan.message(message).fields.first() {
                Some(field) => self.content(field, depth).map(|_| ()),
                None => data("has no field"),
            },
            Op::Value(message) => {
                // The fields of `google.protobuf.Value`, in the sequence of their numbers.
                let index = match self.peek() {
                    b'n' => 0,
                    b'-' | b'0'..=b'9' => 1,
                    b'"' => 2,
                    b't' | b'f' => 3,
                    b'{' => 4,
                    b'[' => 5,
                    _ => return self.mismatch("expected a value"),
                };
                self.content(&plan.message(message).fields[index], depth).map(|_| ())
            }
            Op::Timestamp | Op::Duration => self.time(op),
            Op::FieldMask => self.field_mask(),
            _ => data("is not a message"),
        }
    }

    fn object(&mut self, message: u32, depth: u32) -> Outcome<()> {
        if self.peek() != b'{' {
            return self.mismatch("expected an object");
        }
        if self.is_empty(b'}') {
            return Ok(());
        }
        let plan = self.plan;
        let table = plan.message(message);
        let (mut next, mut seen) = (0, Seen::default());
        loop {
            self.step()?;
            let key = self.at;
            let index = match table.fields.get(next) {
                Some(field) if field.expected.is_at(&plan.texts, self.bytes, self.at) => {
                    self.at += field.expected.len();
                    self.whitespace();
                    Some(next)
                }
                _ => self.unexpected_key(table)?,
            };
            match index {
                Some(index) => {
                    next = index + 1;
                    self.member(&table.fields[index], index, &mut seen, depth)
                        .map_err(|fault| self.under_key(key, fault))?;
                }
                None => self.skip()?,
            }
            if self.is_last(b'}')? {
                return Ok(());
            }
        }
    }

    /// A key that is not that of the next field, with its colon.
    #[inline(never)]
    fn unexpected_key(&mut self, table: &Message) -> Outcome<Option<usize>> {
        let key = self.key()?;
        let index = table.named(&key);
        self.colon()?;
        Ok(index)
    }

    /// A key of an object, without its colon.
    fn key(&mut self) -> Outcome<Cow<'a, [u8]>> {
        if self.peek() != b'"' {
            return self.syntax("expected a key");
        }
        self.text()
    }

    /// The error inside of the member whose key is at this place.
    #[cold]
    fn under_key(&self, at: usize, fault: Box<Fault>) -> Box<Fault> {
        if fault.kind != Kind::Data {
            return fault;
        }
        let mut again = Reader { at, out: Vec::new(), ..*self };
        match again.text() {
            Ok(key) => fault.under(&String::from_utf8_lossy(&key)),
            Err(_) => fault,
        }
    }

    fn member(&mut self, field: &Field, index: usize, seen: &mut Seen, depth: u32) -> Outcome<()> {
        if !seen.fields.insert(index) {
            return data("occurs twice");
        }
        let has_null = field.op.has_null() && !matches!(field.card, Card::Repeated { .. } | Card::Map { .. });
        if self.peek() == b'n' && !has_null {
            return self.literal(b"null");
        }
        let Card::Oneof(oneof) = field.card else {
            return self.content(field, depth).map(|_| ());
        };
        if seen.oneofs.contains(usize::from(oneof)) {
            return data("another field of its oneof is set");
        }
        if self.content(field, depth)? != Written::Nothing {
            seen.oneofs.insert(usize::from(oneof));
        }
        Ok(())
    }

    /// The records of a field that is not null.
    #[inline]
    fn content(&mut self, field: &Field, depth: u32) -> Outcome<Written> {
        match field.card {
            Card::Repeated { packed } => self.list(field, packed, depth)?,
            Card::Map { key } => self.map(field, key, depth)?,
            Card::Implicit | Card::Explicit | Card::Oneof(_) => {
                let start = self.out.len();
                field.head.write(&self.plan.texts, &mut self.out);
                let written = self.value(field.op, depth)?;
                if written == Written::Nothing || written == Written::Zero && field.card == Card::Implicit {
                    self.out.truncate(start);
                }
                return Ok(written);
            }
        }
        Ok(Written::Value)
    }

    /// A value without its tag.
    #[inline]
    fn value(&mut self, op: Op, depth: u32) -> Outcome<Written> {
        match op {
            Op::String => self.string(),
            Op::Uint32 => {
                let number = self.unsigned(u32::MAX.into())?;
                self.varint(number);
                Ok(Written::unless(number == 0))
            }
            Op::Bool => match self.peek() {
                b't' => self.literal(b"true").map(|()| self.bit(true)),
                b'f' => self.literal(b"false").map(|()| self.bit(false)),
                _ => self.mismatch("expected true or false"),
            },
            op if op.is_message() => {
                let length = self.begin();
                self.message(op, deeper(depth)?)?;
                self.end(length);
                Ok(Written::Value)
            }
            Op::Bytes => self.base64(),
            Op::Enum(_) | Op::Null => self.enumeration(op),
            op => self.number(op),
        }
    }

    fn bit(&mut self, bit: bool) -> Written {
        self.out.push(bit.into());
        Written::unless(!bit)
    }
}
