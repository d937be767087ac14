//! `gateway catalog list` and `status`. Must not change anything.

use std::time::{SystemTime, UNIX_EPOCH};

use catalog::Catalog;
use catalog_bucket::{Bucket, Change, Slot, Target};
use cli::Report;
use pbjson_types::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::arguments::Shown;

/// The most names of services that a line shows.
const SERVICES: usize = 3;
/// The digits of a digest in the history.
const DIGITS: usize = 12;

/// A name of the bucket.
struct Row {
    name: String,
    slot: Slot,
    services: Vec<String>,
    /// Why what it points at cannot be served.
    problem: Option<String>,
    history: Vec<Change>,
}

pub(super) async fn run(shown: &Shown, history: bool) -> anyhow::Result<()> {
    let rows = shown.place.with(async |bucket, deadline| rows(bucket, history, deadline).await).await?;
    let mut report = Report::new();
    if shown.json {
        let names: Vec<_> = rows.iter().map(|row| row.json(history)).collect();
        report.line(json!({ "bucket": shown.place.catalog_bucket.as_str(), "names": names }));
    } else if rows.is_empty() {
        report.line(format_args!("the bucket {} has no contract yet", shown.place.catalog_bucket));
    } else if history {
        rows.iter().for_each(|row| row.status(&mut report));
    } else {
        rows.iter().for_each(|row| report.line(row.line()));
    }
    Ok(report.end()?)
}

async fn rows(bucket: &Bucket, history: bool, deadline: Instant) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in bucket.names(deadline).await? {
        let slot = bucket.slot(&name, deadline).await?;
        if slot.target.is_none() && !history {
            continue;
        }
        let (services, problem) = match judge(bucket, &slot, deadline).await {
            Ok(services) => (services, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        let history = if history { bucket.history(&name, deadline).await? } else { Vec::new() };
        rows.push(Row { name, slot, services, problem, history });
    }
    Ok(rows)
}

/// The services of what a name points at, or why it cannot be served.
async fn judge(bucket: &Bucket, slot: &Slot, deadline: Instant) -> Result<Vec<String>, String> {
    let pointer = match &slot.target {
        None => return Ok(Vec::new()),
        Some(Target::Damaged(why)) => return Err(why.clone()),
        Some(Target::Set(pointer)) => pointer,
    };
    let set = bucket.set(&pointer.digest, deadline).await.map_err(|error| error.to_string())?;
    let catalog = Catalog::builder(&set).routed().build().map_err(|findings| findings.to_string())?;
    Ok(catalog.services().iter().map(|service| line(&service.name)).collect())
}

impl Row {
    /// One line: name, digest, services, size, who, when.
    fn line(&self) -> String {
        let (name, when) = (&self.name, time(self.slot.when));
        match &self.slot.target {
            None => format!("{name}  (deleted)  {when}"),
            Some(Target::Damaged(_)) => format!("{name}  {}  {when}", self.shown()),
            Some(Target::Set(pointer)) => format!(
                "{name}  {}  {}  {} bytes  {}  {when}",
                pointer.digest,
                self.shown(),
                pointer.size,
                pointer.who
            ),
        }
    }

    /// The services, or what is wrong.
    fn shown(&self) -> String {
        if let Some(problem) = &self.problem {
            return format!("(wrong: {})", line(problem.lines().next().unwrap_or_default()));
        }
        let more = self.services.len().saturating_sub(SERVICES);
        let first = self.services.iter().take(SERVICES).cloned().collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{first} and {more} more") } else { first }
    }

    fn status(&self, report: &mut Report) {
        report.line(self.line());
        for problem in self.problem.iter().flat_map(|problem| problem.lines()) {
            report.line(format_args!("  wrong: {}", line(problem)));
        }
        for change in self.history.iter().rev() {
            let what = match &change.target {
                None => "deleted".to_owned(),
                Some(Target::Damaged(why)) => format!("(wrong: {})", line(why)),
                Some(Target::Set(pointer)) => {
                    let digest = pointer.digest.to_string();
                    format!("{}  by {}", digest.get(..DIGITS).unwrap_or_default(), pointer.who)
                }
            };
            report.line(format_args!("  revision {}  {}  {what}", change.revision, time(change.when)));
        }
    }

    fn json(&self, history: bool) -> Value {
        let mut row = change(&self.slot);
        row["name"] = self.name.as_str().into();
        row["services"] = self.services.clone().into();
        row["problem"] = self.problem.clone().into();
        if history {
            row["history"] = self.history.iter().map(change).collect::<Vec<_>>().into();
        }
        row
    }
}

fn change(slot: &Slot) -> Value {
    let mut change =
        json!({ "revision": slot.revision, "when": time(slot.when), "deleted": slot.target.is_none() });
    match &slot.target {
        Some(Target::Set(pointer)) => {
            change["digest"] = pointer.digest.to_string().into();
            change["size"] = pointer.size.into();
            change["who"] = pointer.who.as_str().into();
        }
        Some(Target::Damaged(why)) => change["problem"] = why.as_str().into(),
        None => {}
    }
    change
}

/// A time in UTC, such as `2026-11-29T16:00:00Z`.
fn time(when: SystemTime) -> String {
    let seconds = when.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let stamp = Timestamp { seconds: i64::try_from(seconds).unwrap_or(0), nanos: 0 };
    let text = serde_json::to_value(stamp).unwrap_or_default();
    text.as_str().unwrap_or_default().replace("+00:00", "Z")
}

/// A text of others, in one line.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
