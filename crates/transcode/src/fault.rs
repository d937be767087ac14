//! Where and why a conversion failed. Must not know in which direction it goes.

use crate::CodecError;

/// How deeply messages may be nested in others, as decoders of protobuf have it.
pub(crate) const DEPTH: u32 = 100;
/// Of a part of a path, the most characters that are kept.
const LENGTH: usize = 512;

/// The outcome of a step of a conversion. An error is boxed, so that success costs no space.
pub(crate) type Outcome<T> = Result<T, Box<Fault>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The records are not in the sequence of a plan: nothing is wrong, and the message is to be read by an index.
    Unsorted,
    /// The text is not JSON at all. It has no path.
    Syntax,
    /// A value that its field cannot have.
    Data,
}

/// An error, with the path that led to it. The path is built while the callers return.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    path: String,
    why: String,
}

impl Fault {
    #[cold]
    pub(crate) fn unsorted() -> Box<Fault> {
        Box::new(Fault { kind: Kind::Unsorted, path: String::new(), why: "is unsorted".to_owned() })
    }

    /// A text that is not JSON, `at` this byte of it.
    #[cold]
    pub(crate) fn syntax(why: &str, at: usize) -> Box<Fault> {
        Box::new(Fault { kind: Kind::Syntax, path: String::new(), why: format!("{why} at byte {at}") })
    }

    #[cold]
    pub(crate) fn data(why: &str) -> Box<Fault> {
        Box::new(Fault { kind: Kind::Data, path: String::new(), why: why.to_owned() })
    }

    /// The same error inside of the field or map entry of this name.
    #[cold]
    pub(crate) fn under(self: Box<Fault>, name: &str) -> Box<Fault> {
        let name: String = name.chars().take(LENGTH).collect();
        self.within(name)
    }

    /// The same error inside of this element of a list, counted from 0.
    #[cold]
    pub(crate) fn under_element(self: Box<Fault>, index: usize) -> Box<Fault> {
        self.within(format!("[{index}]"))
    }

    fn within(mut self: Box<Fault>, mut outer: String) -> Box<Fault> {
        if self.kind != Kind::Data {
            return self;
        }
        if !self.path.is_empty() && !self.path.starts_with('[') {
            outer.push('.');
        }
        self.path.insert_str(0, &outer);
        self
    }
}

impl From<Box<Fault>> for CodecError {
    fn from(fault: Box<Fault>) -> CodecError {
        CodecError::new(&fault.path, &fault.why)
    }
}

#[cold]
pub(crate) fn data<T>(why: &str) -> Outcome<T> {
    Err(Fault::data(why))
}

/// The depth inside of one more message.
///
/// # Errors
///
/// If no more are allowed.
#[inline]
pub(crate) fn deeper(depth: u32) -> Outcome<u32> {
    match depth.checked_sub(1) {
        Some(depth) => Ok(depth),
        None => data("is nested too deeply"),
    }
}
