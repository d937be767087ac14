//! Properties that hold for any message on the stream of orders: its command concerns the order in its subject, and the
//! error of one that cannot be processed fits a dead letter. Run by the fuzzers in fuzz/, and on their corpus in every
//! test run.

use order_streams::entry::Entry;

use super::command::{Asked, Poison, WORDS, asked};
use crate::stock::Command;

/// A stored message: a line with its subject, lines of headers, an empty line, and its payload.
///
/// # Panics
///
/// If a property does not hold.
pub fn event(data: &[u8]) {
    let end = data.windows(2).position(|window| window == b"\n\n");
    let (head, payload) = end.map_or((data, &b""[..]), |end| (&data[..end], &data[end + 2..]));
    let Ok(head) = str::from_utf8(head) else { return };
    let subject = head.split('\n').next().unwrap_or_default();
    let entry = Entry::parse(9, subject, None, payload);
    match entry.map_err(Poison::from).and_then(|entry| asked(&entry)) {
        Ok(Asked::Command(Command::Bind(order, 9) | Command::Cancel(order, 9) | Command::Ship(order, 9))) => {
            let entries = contract::subject::entries(order);
            let place = entries.strip_prefix("orders.*.*").unwrap_or_default();
            assert!(subject.ends_with(place), "{subject} is not under {entries}");
        }
        Ok(Asked::Command(other)) => panic!("an event asks for {other:?}"),
        Ok(Asked::Nothing) => {}
        Err(Poison(why)) => assert!(why.len() <= 4 * WORDS, "{} bytes of why", why.len()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzers_found_and_began_with_still_holds() {
        crate::replay::each("event", super::event);
    }
}
