//! What the server does not permit us, as it says so: asynchronously, by a text with the subject in it. Must never know
//! what was wanted.

/// How the server says that a publish was dropped; the subject follows in quotes.
const PUBLISH: &str = "Permissions Violation for Publish to \"";
/// How it says that there is no subscription.
const SUBSCRIBE: &str = "Permissions Violation for Subscription to \"";

/// Something that the server does not permit our user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("NATS does not permit our user to {} \"{subject}\"; {}", self.act(), self.hint())]
pub struct Denied {
    /// To publish; else to subscribe.
    pub publish: bool,
    /// To which subject.
    pub subject: String,
}

impl Denied {
    /// What the text of an error of the server's says, if it is about that.
    pub(crate) fn read(text: &str) -> Option<Denied> {
        let after = |begin| text.split_once(begin).and_then(|(_, rest): (_, &str)| rest.split('"').next());
        let (publish, subject) = match after(PUBLISH) {
            Some(subject) => (true, subject),
            None => (false, after(SUBSCRIBE)?),
        };
        Some(Denied { publish, subject: subject.to_owned() })
    }

    fn act(&self) -> &'static str {
        if self.publish { "publish to" } else { "subscribe to" }
    }

    fn hint(&self) -> &'static str {
        if self.subject.starts_with("$JS.API.STREAM.CREATE.") {
            "a stream is missing: `gateway provision` makes it, as a user who may"
        } else if !self.publish && self.subject.starts_with("_INBOX") {
            "GW_NATS_INBOX_PREFIX has to be the inbox of our role"
        } else {
            "deploy/nats/roles.conf has what each role needs"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_read_and_say_what_to_do() {
        let read = |text: &str| Denied::read(text).map(|denied| denied.to_string()).unwrap_or_default();
        let publish = read("Permissions Violation for Publish to \"$JS.API.STREAM.CREATE.ORDERS\"");
        assert!(
            publish.contains("publish to \"$JS.API.STREAM.CREATE.ORDERS\"; a stream is missing"),
            "{publish}"
        );
        let inbox = read("Permissions Violation for Subscription to \"_INBOX.x.*\"");
        assert!(inbox.contains("subscribe to \"_INBOX.x.*\"; GW_NATS_INBOX_PREFIX"), "{inbox}");
        let queue =
            read("Permissions Violation for Subscription to \"get_stock\" using queue \"inventory-stock\"");
        assert!(queue.contains("subscribe to \"get_stock\"; deploy/nats/roles.conf"), "{queue}");
        assert_eq!(Denied::read("Stale Connection"), None);
    }
}
