//! Texts from callers that end up in logs, in headers and on terminals.

/// Most characters of a tenant's name.
pub const TENANT: usize = 128;

/// Whether it is the name of a tenant: 1 to 128 printable characters, not only blanks.
pub fn is_tenant(text: &str) -> bool {
    !text.trim().is_empty() && printable(text, TENANT)
}

/// Whether a text has at most `limit` characters and none that controls the output: no C0 or C1, no line breaks, no
/// zero width, no change of direction.
pub fn printable(text: &str, limit: usize) -> bool {
    let controls = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().take(limit + 1).count() <= limit && !text.chars().any(controls)
}
