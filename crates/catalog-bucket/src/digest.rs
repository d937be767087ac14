//! The digest by which a set is found: SHA-256, in hexadecimal. Must do no I/O.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a set. Displayed as 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Reads a digest, with or without `sha256:` before it.
    ///
    /// # Errors
    /// It is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Digest, String> {
        let wrong = || "a digest has 64 hexadecimal digits, as `gateway catalog list` shows them".to_owned();
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut digest = [0; 32];
        for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
            *byte =
                u8::from_str_radix(digits.get(at..at + 2).unwrap_or_default(), 16).map_err(|_| wrong())?;
        }
        Ok(Digest(digest))
    }

    /// As the metadata of an object has it.
    pub(crate) fn of_object(self) -> String {
        format!("SHA-256={}", URL_SAFE.encode(self.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Digest, String> {
        Digest::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_as_it_is_read() {
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), text);
        assert_eq!(Digest::parse(&format!("sha256:{text}")), Ok(Digest::of(b"abc")));
        for wrong in ["", "ba78", &text.replace('b', "g"), &format!("{text}00"), &"é".repeat(32)] {
            assert!(Digest::parse(wrong).is_err(), "{wrong}");
        }
    }
}
