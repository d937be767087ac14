//! `gateway dead-letters`: lists and shows events that could not be processed, and has a worker process them again. The
//! worker decides the outcome. A dead letter is removed only when the worker says that the event is done, or when an
//! operator discards it.

mod discard;
mod text;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use cli::Report;
use contract::inventory::v1::RedeliverEventRequest;
use nats::Connection;
use order_streams::DeadLetters;
use serde_json::Value;
use tokio::time::Instant;

pub use discard::discard;
pub use text::Replayed;
use text::{object, plain, when};

use crate::OPERATORS;
use crate::typed::ask;
use bridge::Bridge;
use bridge::call::CallContext;

/// Timeout of a worker for one event, repeats included.
const LIMIT: Duration = Duration::from_secs(30);

/// `gateway dead-letters`.
#[derive(Debug, Clone, Args)]
pub struct DeadLettersCommand {
    /// What to do with them
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// List them, oldest first
    List {
        /// List those that were discarded: when, by whom and why
        #[arg(long)]
        discarded: bool,
        /// Print a JSON object per line
        #[arg(long)]
        json: bool,
        /// Where NATS is.
        #[command(flatten)]
        nats: nats::Options,
    },
    /// Show one with its event
    Show {
        /// Its id in the list
        id: u64,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
        /// Where NATS is.
        #[command(flatten)]
        nats: nats::Options,
    },
    /// Have a worker process events again; those that are done are removed
    Replay {
        /// Ids in the list
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<u64>,
        /// All of them
        #[arg(long)]
        all: bool,
        /// Print what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Where NATS is.
        #[command(flatten)]
        nats: nats::Options,
    },
    /// Remove some for good, and record who did it and why; their events are never processed
    Discard {
        /// Ids in the list
        #[arg(required = true)]
        ids: Vec<u64>,
        /// Why nobody needs these events; kept for `list --discarded`
        #[arg(long, value_name = "TEXT", value_parser = discard::reason)]
        why: String,
        /// Who discards them; default: the user of this shell
        #[arg(long, value_name = "NAME", value_parser = discard::reason)]
        by: Option<String>,
        /// Print what would happen, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Where NATS is.
        #[command(flatten)]
        nats: nats::Options,
    },
}

/// Lists, shows, replays or discards.
pub async fn run(config: DeadLettersCommand) -> anyhow::Result<()> {
    let (Action::List { nats, .. }
    | Action::Show { nats, .. }
    | Action::Replay { nats, .. }
    | Action::Discard { nats, .. }) = &config.action;
    let link = Connection::connect(nats, "gateway dead-letters").await?;
    link.permitted(act(&link, config.action)).await.context(OPERATORS)?
}

async fn act(link: &Connection, action: Action) -> anyhow::Result<()> {
    match action {
        Action::List { json, discarded: true, .. } => discard::list(link, json).await,
        Action::List { json, .. } => list(link, json).await,
        Action::Show { id, json, .. } => show(link, id, json).await,
        Action::Replay { ids, all, dry_run, .. } => {
            let ids = if all { every(link).await? } else { ids };
            say(&replay(link, &ids, dry_run).await?, dry_run)
        }
        Action::Discard { ids, why, by, dry_run, .. } => {
            let by = discard::author(by)?;
            discard::say(&discard(link, &ids, &why, &by, dry_run).await?, dry_run)
        }
    }
}

/// The ids of all dead letters, oldest first.
pub async fn every(link: &Connection) -> anyhow::Result<Vec<u64>> {
    let letters = DeadLetters::new(link);
    let (mut ids, mut from) = (Vec::new(), 1);
    while let Some(letter) = letters.next(from).await? {
        ids.push(letter.id);
        from = letter.id + 1;
    }
    Ok(ids)
}

/// Gives the events of these dead letters to a worker, one after the other. All dead letters of an event are removed
/// with it. With `dry_run`, nothing is changed.
pub async fn replay(link: &Connection, ids: &[u64], dry_run: bool) -> anyhow::Result<Vec<Replayed>> {
    let replayer = Replayer::open(link).await?;
    let (mut replayed, mut gone) = (Vec::with_capacity(ids.len()), HashSet::<u64>::new());
    for id in ids.iter().copied() {
        if gone.contains(&id) {
            continue;
        }
        match replayer.replay(id, dry_run).await {
            Ok(end) => {
                gone.extend(end.iter().flatten());
                replayed.push(Replayed { id, end });
            }
            // What was done before this error has to be reported.
            Err(error) => {
                let end = Err(format!("{error:#}; those after it were not tried"));
                replayed.push(Replayed { id, end });
                break;
            }
        }
    }
    Ok(replayed)
}

struct Replayer {
    letters: DeadLetters,
    bridge: Bridge,
    /// The dead letters of each event.
    by_event: HashMap<u64, Vec<u64>>,
}

impl Replayer {
    async fn open(link: &Connection) -> anyhow::Result<Replayer> {
        let letters = DeadLetters::new(link);
        let by_event = letters.by_event().await?;
        let bridge = Bridge::new(link.clone(), crate::served::states());
        Ok(Replayer { letters, bridge, by_event })
    }

    /// The dead letters that were removed, or why none was. An error only if the outcome is unknown.
    async fn replay(&self, id: u64, dry_run: bool) -> anyhow::Result<Result<Vec<u64>, String>> {
        let Some(letter) = self.letters.get(id).await? else {
            return Ok(Err("there is no such dead letter".to_owned()));
        };
        let Some(sequence) = letter.sequence else {
            return Ok(Err("it does not name its event".to_owned()));
        };
        if !self.letters.recorded(&letter).await? {
            let why = "its event is not on the record, which was restored from an older backup";
            return Ok(Err(format!("{why}; `gateway dead-letters discard {id} --why TEXT` removes it")));
        }
        let request = RedeliverEventRequest {
            sequence: i64::try_from(sequence).unwrap_or(i64::MAX),
            validate_only: dry_run,
        };
        let call = CallContext::until(Instant::now() + LIMIT);
        if let Err(failure) = ask(&self.bridge, &request, &call).await {
            return Ok(Err(format!("{}: {}", failure.reason, failure.message)));
        }
        let all = self.by_event.get(&sequence).cloned().unwrap_or_else(|| vec![id]);
        if !dry_run {
            for id in &all {
                // One that was removed by somebody else meanwhile counts as removed.
                self.letters.remove(*id).await?;
            }
        }
        Ok(Ok(all))
    }
}

fn say(replayed: &[Replayed], dry_run: bool) -> anyhow::Result<()> {
    let mut left = 0;
    for Replayed { id, end } in replayed {
        match end {
            Ok(gone) => {
                let more = gone.iter().filter(|gone| *gone != id).map(|id| format!(", {id}"));
                let done = if dry_run { "would be processed and removed" } else { "processed and removed" };
                cli::say!("{id}{}: {done}", more.collect::<String>());
            }
            Err(why) => {
                left += 1;
                cli::say!("{id}: {}{}", if dry_run { "would stay: " } else { "stays: " }, plain(why));
            }
        }
    }
    match left {
        0 => Ok(()),
        left => bail!("{left} of {} dead letters that were tried could not be replayed", replayed.len()),
    }
}

async fn list(link: &Connection, as_json: bool) -> anyhow::Result<()> {
    let (letters, mut from, mut report) = (DeadLetters::new(link), 1, Report::new());
    if !as_json {
        report.line(format_args!("{:>6}  {:<24}  {:>10}  {:<70}  ERROR", "ID", "WHEN", "EVENT", "SUBJECT"));
    }
    // Listing changes nothing, so it may stop when the reader of the output is gone.
    while report.is_read()
        && let Some(letter) = letters.next(from).await?
    {
        from = letter.id + 1;
        if as_json {
            report.line(object(&letter));
            continue;
        }
        let event = letter.sequence.map(|sequence| sequence.to_string()).unwrap_or_default();
        let (subject, error) = (plain(&letter.subject), plain(&letter.error));
        report.line(format_args!(
            "{:>6}  {:<24}  {event:>10}  {subject:<70}  {error}",
            letter.id,
            when(letter.at)
        ));
    }
    Ok(report.end()?)
}

async fn show(link: &Connection, id: u64, as_json: bool) -> anyhow::Result<()> {
    let letter =
        DeadLetters::new(link).get(id).await?.with_context(|| format!("there is no dead letter {id}"))?;
    let mut report = Report::new();
    if as_json {
        let mut object = object(&letter);
        match serde_json::from_slice::<Value>(&letter.payload) {
            Ok(payload) => object["payload"] = payload,
            Err(_) => object["payloadBase64"] = STANDARD.encode(&letter.payload).into(),
        }
        report.line(object);
        return Ok(report.end()?);
    }
    let event = letter.sequence.map_or_else(|| "unknown".to_owned(), |event| event.to_string());
    report.line(format_args!("id:      {id}\nwhen:    {}\nevent:   {event}", when(letter.at)));
    report.line(format_args!("subject: {}\nerror:   {}", plain(&letter.subject), plain(&letter.error)));
    let payload = serde_json::from_slice::<Value>(&letter.payload);
    let pretty = payload.and_then(|payload| serde_json::to_string_pretty(&payload));
    report.line(pretty.unwrap_or_else(|_| plain(&String::from_utf8_lossy(&letter.payload))));
    Ok(report.end()?)
}
