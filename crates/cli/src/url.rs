//! Removes secrets from URLs for display. Must not connect to any.

/// Replaces a secret.
const HIDDEN: &str = "…";

/// The user information of a URL: everything before the last `@` after `://`, up to the first slash. A slash in a
/// password must be written as %2F, but an unencoded one is recognized as well.
pub fn user_information(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.rsplit_once('@').map(|(user, _)| user)
}

/// A URL, or several separated by commas, without users, passwords and tokens. Text that does not look like a host and
/// a port is not shown either: it may be half of a password that contains a comma.
pub fn shown(urls: &str) -> String {
    urls.split(',').map(|url| one(url.trim())).collect::<Vec<_>>().join(",")
}

/// A text, without the user information of a URL that it may contain.
pub(crate) fn cleaned(text: &str) -> String {
    if text.contains("://") && text.contains('@') { shown(text) } else { text.to_owned() }
}

fn one(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    if is_authority(host) { format!("{scheme}{host}{path}") } else { format!("{scheme}{HIDDEN}") }
}

/// Whether a text is a host, optionally with a port.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':').unwrap_or(port)),
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let harmless = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    !host.is_empty() && host.chars().all(harmless) && port.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_what_is_secret_in_them() {
        let pairs = [
            ("nats://ann:hush@one:4222, tls://hush@two,three", "nats://one:4222,tls://two,three"),
            ("https://ann:hush@id.example.com:8443/keys?token=hush", "https://id.example.com:8443/keys"),
            ("http://[::1]:4317", "http://[::1]:4317"),
            // Characters that should have been percent-encoded.
            ("nats://ann:hu@sh@one", "nats://one"),
            ("nats://ann:hush/hush@one:1", "nats://one:1"),
            ("nats://ann:hush,hush@one:1", "nats://…,one:1"),
            ("nats://ann:hush", "nats://…"),
            ("ann:hush@one", "one"),
        ];
        for (url, expected) in pairs {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn text_that_is_no_url_is_left_as_it_is() {
        assert_eq!(cleaned("ann@example.com, 12"), "ann@example.com, 12");
        assert_eq!(cleaned("https://ann:hush@one"), "https://one");
    }
}
