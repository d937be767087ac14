//! NATS permissions violations: the server reports them asynchronously, in a text that contains the subject. Must not
//! depend on what the request was for.

/// The server's text for a dropped publish; the subject follows in quotes.
const PUBLISH: &str = "Permissions Violation for Publish to \"";
/// The server's text for a refused subscription.
const SUBSCRIBE: &str = "Permissions Violation for Subscription to \"";

/// A permissions violation: an operation that the server does not permit our user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("permissions violation: NATS does not permit our user to {} \"{subject}\"; {}", self.act(), self.hint())]
pub struct PermissionViolation {
    /// Whether it is a publish; else a subscription.
    pub publish: bool,
    /// The subject.
    pub subject: String,
}

impl PermissionViolation {
    /// Reads the text of a server error; `None` if it is not a permissions violation.
    pub(crate) fn read(text: &str) -> Option<PermissionViolation> {
        let after = |begin| text.split_once(begin).and_then(|(_, rest): (_, &str)| rest.split('"').next());
        let (publish, subject) = match after(PUBLISH) {
            Some(subject) => (true, subject),
            None => (false, after(SUBSCRIBE)?),
        };
        Some(PermissionViolation { publish, subject: subject.to_owned() })
    }

    fn act(&self) -> &'static str {
        if self.publish { "publish to" } else { "subscribe to" }
    }

    fn hint(&self) -> &'static str {
        if self.subject.starts_with("$JS.API.STREAM.CREATE.") {
            "a stream is missing: create it with `gateway provision`, as a user with that permission"
        } else if !self.publish && self.subject.starts_with("_INBOX") {
            "set GW_NATS_INBOX_PREFIX to the inbox prefix of our role: with deploy/nats/roles.conf, `_INBOX_` and the \
             user's name, such as _INBOX_operator"
        } else {
            "deploy/nats/roles.conf lists what each role needs"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_read_and_say_what_to_do() {
        let read =
            |text: &str| PermissionViolation::read(text).map(|denied| denied.to_string()).unwrap_or_default();
        let publish = read("Permissions Violation for Publish to \"$JS.API.STREAM.CREATE.ONE\"");
        assert!(
            publish.contains("publish to \"$JS.API.STREAM.CREATE.ONE\"; a stream is missing"),
            "{publish}"
        );
        let inbox = read("Permissions Violation for Subscription to \"_INBOX.x.*\"");
        assert!(inbox.contains("subscribe to \"_INBOX.x.*\"; set GW_NATS_INBOX_PREFIX"), "{inbox}");
        assert!(inbox.contains("such as _INBOX_operator"), "{inbox}");
        let queue = read("Permissions Violation for Subscription to \"books.get\" using queue \"books\"");
        assert!(queue.contains("subscribe to \"books.get\"; deploy/nats/roles.conf"), "{queue}");
        assert_eq!(PermissionViolation::read("Stale Connection"), None);
    }
}
