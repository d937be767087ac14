//! The subject of a route: tokens, some of which come from the request. Must not let anything of a request become more
//! than one token.

use std::fmt;

use prost_reflect::MessageDescriptor;
use transcode::{CodecError, FieldPath};

/// The most characters of a token.
pub(crate) const TOKEN: usize = 64;
/// The most tokens.
const TOKENS: usize = 32;
/// Stands for the caller's tenant.
const TENANT: &str = "$tenant";

/// A subject, such as `books.get`, or a template of subjects, such as `books.{book_id}.get`.
#[derive(Debug, Clone)]
pub struct Subject {
    text: String,
    tokens: Vec<Token>,
}

/// What a token is.
#[derive(Debug, Clone)]
enum Token {
    Fixed(String),
    Field(FieldPath),
    Tenant,
}

/// Why a request has no subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectError {
    /// A field of the request is not one token.
    Field(CodecError),
    /// The subject has the caller's tenant, and the caller has none, or one that is not a token.
    Tenant,
}

impl Subject {
    /// Reads a subject; its fields are those of this request. What is wrong, and what to write instead.
    pub(crate) fn read(text: &str, request: &MessageDescriptor) -> Result<Subject, (String, String)> {
        let token = |token: &str| match token.strip_prefix('{').and_then(|token| token.strip_suffix('}')) {
            Some(TENANT) => Ok(Token::Tenant),
            Some(path) => FieldPath::new(request, path).map(Token::Field).map_err(|error| {
                let remedy = "write the name of a field of the request, like \"books.{book_id}\"";
                (format!("the subject {text:?}: {error}"), remedy.to_owned())
            }),
            None if is_token(token) => Ok(Token::Fixed(token.to_owned())),
            None => {
                let problem =
                    format!("the subject {text:?} has a token that is not [A-Za-z0-9_-]{{1,{TOKEN}}}");
                let remedy = "write tokens joined by dots, without wildcards, like \"books.get\"";
                Err((problem, remedy.to_owned()))
            }
        };
        let tokens = split(text).map(token).collect::<Result<Vec<_>, _>>()?;
        if tokens.len() > TOKENS {
            let problem = format!("the subject {text:?} has {} tokens", tokens.len());
            return Err((problem, format!("write at most {TOKENS}")));
        }
        Ok(Subject { text: text.to_owned(), tokens })
    }

    /// A subject without fields, such as `books.get`; none if it is not tokens joined by dots.
    pub fn fixed(text: &str) -> Option<Subject> {
        let token = |token: &str| is_token(token).then(|| Token::Fixed(token.to_owned()));
        let tokens = text.split('.').map(token).collect::<Option<Vec<_>>>()?;
        Some(Subject { text: text.to_owned(), tokens })
    }

    /// The text in the option: the subject, or the template.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is the same for all requests.
    pub fn is_fixed(&self) -> bool {
        self.tokens.iter().all(|token| matches!(token, Token::Fixed(_)))
    }

    /// Whether a token is the caller's tenant.
    pub fn has_tenant(&self) -> bool {
        self.tokens.iter().any(|token| matches!(token, Token::Tenant))
    }

    /// All subjects that it can become, as NATS writes them: `books.*.get`.
    pub fn pattern(&self) -> String {
        let token = |token: &Token| match token {
            Token::Fixed(token) => token.clone(),
            Token::Field(_) | Token::Tenant => "*".to_owned(),
        };
        self.tokens.iter().map(token).collect::<Vec<_>>().join(".")
    }

    /// The subject for a request in the protobuf encoding, of a caller for this tenant.
    ///
    /// # Errors
    ///
    /// If a field of it, or the tenant, is not 1 to 64 of `[A-Za-z0-9_-]`.
    pub fn expand(&self, request: &[u8], tenant: Option<&str>) -> Result<String, SubjectError> {
        let mut subject = String::with_capacity(self.text.len() + TOKEN);
        for token in &self.tokens {
            if !subject.is_empty() {
                subject.push('.');
            }
            match token {
                Token::Fixed(token) => subject.push_str(token),
                Token::Field(path) => subject.push_str(&field(path, request).map_err(SubjectError::Field)?),
                Token::Tenant => {
                    subject.push_str(tenant.filter(|text| is_token(text)).ok_or(SubjectError::Tenant)?);
                }
            }
        }
        Ok(subject)
    }
}

/// The tokens of a template: dots between braces separate the names of fields.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.split(move |c| {
        inside = match c {
            '{' => true,
            '}' => false,
            _ => inside,
        };
        c == '.' && !inside
    })
}

fn field(path: &FieldPath, request: &[u8]) -> Result<String, CodecError> {
    let Some(scalar) = path.read(request)? else {
        return Err(CodecError::new(path.path(), "is not set, and is part of the subject"));
    };
    let text = scalar.to_string();
    if is_token(&text) {
        return Ok(text);
    }
    let problem = format!("is part of the subject, and has to be 1 to {TOKEN} characters of [A-Za-z0-9_-]");
    Err(CodecError::new(path.path(), &problem))
}

/// Whether this is one token of a subject that NATS and this gateway take literally.
pub(crate) fn is_token(text: &str) -> bool {
    (1..=TOKEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

/// Whether some subject fits both patterns.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

/// Whether each subject that fits a pattern fits this one, too.
pub(crate) fn covers(allowed: &str, pattern: &str) -> bool {
    let (mut allowed, mut pattern) = (allowed.split('.'), pattern.split('.'));
    loop {
        match (allowed.next(), pattern.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubjectError::Field(error) => error.fmt(f),
            SubjectError::Tenant => {
                f.write_str("the rpc is for callers of one tenant, whose name is a token of a subject")
            }
        }
    }
}

impl std::error::Error for SubjectError {}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_pattern_covers_what_has_no_subject_outside_of_it() {
        for (allowed, pattern) in
            [("a.>", "a.b"), ("a.>", "a.*.c"), ("a.*", "a.b"), ("a.*", "a.*"), ("a.b", "a.b"), ("*.b", "a.b")]
        {
            assert!(covers(allowed, pattern), "{allowed} {pattern}");
        }
        for (allowed, pattern) in [
            ("a.>", "a"),
            ("a.>", "b.a"),
            ("a.>", "*.b"),
            ("a.*", "a.b.c"),
            ("a.b", "a.*"),
            ("a.b", "a.b.c"),
            ("", "a"),
        ] {
            assert!(!covers(allowed, pattern), "{allowed} {pattern}");
        }
    }
}
