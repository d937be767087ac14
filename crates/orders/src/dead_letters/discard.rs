//! `gateway dead-letters discard`: removes dead letters that nobody needs, and keeps a record of each. Must not decide
//! what happens to their orders: the workers do, by their rules, once the dead letters are gone.

use std::collections::HashSet;

use anyhow::{Context as _, bail};
use cli::Report;
use nats::Connection;
use order_streams::DeadLetters;
use serde_json::json;

use super::text::{Replayed, object, plain, when};

/// Characters of a reason or a name: both go into headers.
const LONGEST: usize = 500;
/// The shell's variables with the user's name; first the user who became root.
const USERS: [&str; 3] = ["SUDO_USER", "USER", "LOGNAME"];

/// Parses a reason or a name that is not empty, for clap.
pub(super) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("it is empty".to_owned()),
        length if length > LONGEST => Err(format!("it has {length} characters, over the limit of {LONGEST}")),
        _ => Ok(text.to_owned()),
    }
}

/// Who discards.
pub(super) fn author(by: Option<String>) -> anyhow::Result<String> {
    let shell = || USERS.iter().filter_map(|name| std::env::var(name).ok()).find(|name| !name.is_empty());
    by.or_else(shell).context("no user name in the environment: give one with --by NAME")
}

/// Discards these dead letters one after the other, each with all others of its event. With `dry_run`, nothing is
/// changed.
pub async fn discard(
    link: &Connection,
    ids: &[u64],
    why: &str,
    by: &str,
    dry_run: bool,
) -> anyhow::Result<Vec<Replayed>> {
    let letters = DeadLetters::new(link);
    let by_event = letters.by_event().await?;
    let (mut discarded, mut gone) = (Vec::with_capacity(ids.len()), HashSet::<u64>::new());
    for id in ids.iter().copied() {
        if gone.contains(&id) {
            continue;
        }
        let Some(letter) = letters.get(id).await? else {
            discarded.push(Replayed { id, end: Err("there is no such dead letter".to_owned()) });
            continue;
        };
        let of_event = letter.sequence.and_then(|sequence| by_event.get(&sequence).cloned());
        let all = of_event.unwrap_or_else(|| vec![id]);
        for id in all.iter().filter(|_| !dry_run) {
            // One that was removed by somebody else meanwhile counts as removed.
            if let Some(letter) = letters.get(*id).await? {
                letters.discard(&letter, why, by).await?;
            }
        }
        gone.extend(&all);
        discarded.push(Replayed { id, end: Ok(all) });
    }
    Ok(discarded)
}

pub(super) fn say(discarded: &[Replayed], dry_run: bool) -> anyhow::Result<()> {
    let mut left = 0;
    for Replayed { id, end } in discarded {
        match end {
            Ok(gone) => {
                let more = gone.iter().filter(|gone| *gone != id).map(|id| format!(", {id}"));
                let done = if dry_run { "would be discarded" } else { "discarded" };
                cli::say!("{id}{}: {done}", more.collect::<String>());
            }
            Err(why) => {
                left += 1;
                cli::say!("{id}: {why}");
            }
        }
    }
    match left {
        0 => Ok(()),
        left => bail!("{left} of {} dead letters do not exist", discarded.len()),
    }
}

/// Lists those that were discarded, oldest first.
pub(super) async fn list(link: &Connection, as_json: bool) -> anyhow::Result<()> {
    let (letters, mut from, mut report) = (DeadLetters::new(link), 1, Report::new());
    if !as_json {
        report.line(format_args!(
            "{:>6}  {:<24}  {:>10}  {:<70}  {:<12}  WHY",
            "ID", "DISCARDED", "EVENT", "SUBJECT", "BY"
        ));
    }
    while report.is_read()
        && let Some((sequence, discarded)) = letters.next_discarded(from).await?
    {
        from = sequence + 1;
        let (letter, why, by) = (&discarded.letter, plain(&discarded.why), plain(&discarded.by));
        if as_json {
            let mut object = object(letter);
            (object["why"], object["by"]) = (json!(discarded.why), json!(discarded.by));
            report.line(object);
            continue;
        }
        let event = letter.sequence.map(|sequence| sequence.to_string()).unwrap_or_default();
        let subject = plain(&letter.subject);
        report.line(format_args!(
            "{:>6}  {:<24}  {event:>10}  {subject:<70}  {by:<12}  {why}",
            letter.id,
            when(letter.at)
        ));
    }
    Ok(report.end()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_something_and_fits_a_header() {
        assert_eq!(reason(" twice, by hand ").unwrap(), "twice, by hand");
        assert!(reason(" \n").is_err() && reason(&"é".repeat(LONGEST + 1)).is_err());
        assert!(reason(&"é".repeat(LONGEST)).is_ok());
    }
}
