//! How many messages a service may send ahead of its client: as many as fit into a number of bytes, by their usual size.
//! Must not know how it is told.

/// How many it may send at first: messages as large as NATS takes by default fit into what waits for a client.
pub(crate) const FIRST: i64 = 8;
/// The bytes that may be under way: half of what waits for a client.
const BYTES: i64 = 4 << 20;
/// The least and the most messages that may be under way.
const LEAST: i64 = 4;
const MOST: i64 = 128;
/// One part of so many of the usual size is that of the last message.
const PARTS: i64 = 8;

#[derive(Debug)]
pub(crate) struct Window {
    /// Granted, and not yet taken by the client.
    ahead: i64,
    /// The usual size of a message, in bytes.
    usual: i64,
}

impl Default for Window {
    fn default() -> Window {
        Window { ahead: FIRST, usual: BYTES / FIRST }
    }
}

impl Window {
    /// The client has taken a message of this size.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.ahead -= 1;
        let bytes = i64::try_from(bytes).unwrap_or(BYTES).clamp(1, BYTES);
        self.usual += (bytes - self.usual) / PARTS;
    }

    /// How many more may be granted; none while they are few.
    pub(crate) fn more(&self) -> Option<i64> {
        let most = (BYTES / self.usual.max(1)).clamp(LEAST, MOST);
        let more = most - self.ahead;
        (more >= most / 2).then_some(more)
    }

    /// So many were granted.
    pub(crate) fn grant(&mut self, more: i64) {
        self.ahead += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes messages of this size until the usual size is theirs, and returns the most that were ahead at a time.
    fn ahead(bytes: usize) -> i64 {
        let mut window = Window::default();
        let mut most = window.ahead;
        for _ in 0..1_000 {
            window.took(bytes);
            if let Some(more) = window.more() {
                assert!(more > 0);
                window.grant(more);
            }
            assert!(window.ahead > 0, "the service may always go on");
            most = most.max(window.ahead);
        }
        most
    }

    #[test]
    fn small_messages_may_be_many_and_large_ones_few() {
        assert!(ahead(1) > MOST / 2 && ahead(1_024) > MOST / 2);
        assert!(ahead(1_024) <= MOST);
        assert!((1..=FIRST).contains(&ahead(1 << 20)));
        let some = ahead(64 << 10);
        assert!((16..=64).contains(&some), "{some}");
    }

    #[test]
    fn what_is_ahead_fits_into_what_waits_for_a_client() {
        for bytes in [1, 100, 4 << 10, 64 << 10, 256 << 10, 1 << 20] {
            assert!(ahead(bytes) * i64::try_from(bytes).unwrap() <= 2 * BYTES, "{bytes}");
        }
        // Those that were granted for small messages may become larger ones.
        assert!(ahead(1) * (64 << 10) <= 2 * BYTES);
    }
}
