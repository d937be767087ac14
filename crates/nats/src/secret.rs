//! Secret texts: never printed, and wiped when dropped. Must not depend on what they open.

use zeroize::Zeroizing;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The value of an environment variable; `None` if it is empty.
    pub fn of_environment(name: &str) -> Option<Secret> {
        std::env::var(name).ok().filter(|text| !text.is_empty()).map(Secret::from)
    }

    /// The text, without a copy of it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// A copy of the text.
    pub fn text(&self) -> String {
        self.0.as_str().to_owned()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}
