//! Names of buckets and of contracts in them. Must do no I/O.

use std::fmt;

/// The most characters of a name.
const LONGEST: usize = 64;

/// The name of a bucket: 1 to 64 of `[A-Za-z0-9_-]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BucketName {
    name: &'static str,
    pointers: &'static str,
    objects: &'static str,
}

impl BucketName {
    /// Reads a name. Its text is kept until the process ends: a process has one bucket.
    ///
    /// # Errors
    /// It is no name of a bucket.
    pub fn parse(text: &str) -> Result<BucketName, String> {
        if !is_name(text) {
            return Err(format!("a bucket's name has 1 to {LONGEST} characters of [A-Za-z0-9_-]"));
        }
        let kept = |text: String| -> &'static str { text.leak() };
        Ok(BucketName {
            name: kept(text.to_owned()),
            pointers: kept(format!("KV_{text}")),
            objects: kept(format!("OBJ_{text}")),
        })
    }

    /// Its text.
    pub fn as_str(self) -> &'static str {
        self.name
    }

    /// The stream of the key-value bucket.
    pub(crate) fn pointers(self) -> &'static str {
        self.pointers
    }

    /// The stream of the object store.
    pub(crate) fn objects(self) -> &'static str {
        self.objects
    }

    /// The subjects of all keys.
    pub(crate) fn keys(self) -> String {
        format!("$KV.{}.>", self.name)
    }

    /// The subject of the key of a contract's name, or the prefix of all.
    pub(crate) fn key(self, name: &str) -> String {
        format!("$KV.{}.active/{name}", self.name)
    }

    /// The subject of the contents of an object.
    pub(crate) fn contents(self, id: &str) -> String {
        format!("$O.{}.C.{id}", self.name)
    }

    /// The subject of the metadata of an object, whose name is encoded.
    pub(crate) fn metadata(self, encoded: &str) -> String {
        format!("$O.{}.M.{encoded}", self.name)
    }
}

/// Whether this may be the name of a contract, or of a bucket.
pub fn is_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.name, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_token_of_a_subject() {
        assert!(BucketName::parse("contracts-2").is_ok());
        for wrong in ["", "a.b", "*", ">", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(BucketName::parse(wrong).is_err(), "{wrong}");
        }
    }
}
