//! The fault table as Markdown and as JSON. Must not decide whether a bound holds.

use serde_json::{Value, json};

use super::row::Row;
use super::sample::Source;
use super::truth::Followed;

/// Findings of a fault that are printed; all are in the JSON.
const SHOWN: usize = 20;

/// Prints the table.
pub(crate) fn table(rows: &[Row]) {
    cli::say!(
        "\n| fault | failed calls | first successful call | last failed call | failed calls end after | gateways' health | workers' health | console | alerts |"
    );
    cli::say!("|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        let health = |gateway| {
            let [grpc, healthz] = [Source::Grpc, Source::Healthz].map(|source| said(row, gateway, source));
            if grpc == healthz { grpc } else { format!("gRPC: {grpc}; /healthz: {healthz}") }
        };
        cli::say!(
            "| {} | {} of {} | {} | {} | {} | {} | {} | {} | {} |",
            row.fault,
            row.failed,
            row.calls,
            seconds(row.first_good),
            seconds(row.last_failed),
            row.median.map_or("–".to_owned(), |median| format!("{median:.2} s")),
            health(true),
            health(false),
            said(row, true, Source::Console),
            alerts(row)
        );
    }
}

/// Prints which alerts fired, and when each did.
pub(crate) fn fired(rows: &[Row]) {
    for row in rows {
        cli::say!("{}", row.fault);
        for name in row.fault.cause.alerts() {
            let alert = row.alerts.as_ref().and_then(|alerts| alerts.get(*name));
            let fired = alert.and_then(|alert| Some((alert.fired?, alert.to)));
            match fired {
                Some((fired, to)) => cli::say!("   fired {fired:+.1} s, resolved {to:+.1} s: {name}"),
                None => cli::say!("   did not fire: {name}"),
            }
        }
    }
}

/// Prints a summary of one fault.
pub(crate) fn note(row: &Row) {
    cli::say!("{}: {} of {} calls failed", row.fault, row.failed, row.calls);
    row.kinds.iter().for_each(|(kind, count)| cli::say!("{count:>9}  {kind}"));
    if let Some(last) = row.last_failed_during {
        cli::say!("          from {} to {last:+.1} s", seconds(row.first_failed));
    }
    if let Some(last) = row.last_failed.filter(|last| *last >= row.ended) {
        cli::say!("          and until {last:+.1} s, after its end at {:+.1} s", row.ended);
    }
    let early = row.first_failed.filter(|first| *first < -0.5);
    early.iter().for_each(|first| {
        cli::say!("     note  calls failed before the fault, at {first:+.1} s: is this machine busy?")
    });
    row.findings.iter().take(SHOWN).for_each(|finding| cli::say!("   FAILED  {finding}"));
    if let Some(more) = row.findings.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        cli::say!("   FAILED  and {more} more findings");
    }
}

fn said(row: &Row, gateway: bool, source: Source) -> String {
    row.said
        .get(&(gateway, source))
        .map_or("–".to_owned(), |followed| words(followed, row.outage.is_some()))
}

fn words(followed: &Followed, outage: bool) -> String {
    let wrong = if followed.wrong.is_empty() { "" } else { ", WRONG" };
    match (followed.down, followed.up) {
        (Some(down), Some(up)) => format!("down +{down:.1} s, up +{up:.1} s{wrong}"),
        (Some(down), None) => format!("down +{down:.1} s{wrong}"),
        (None, _) if outage || !wrong.is_empty() => format!("SERVING{wrong}"),
        (None, _) => "SERVING".to_owned(),
    }
}

/// The alerts that became active, with their times; critical ones first.
fn alerts(row: &Row) -> String {
    let Some(alerts) = &row.alerts else { return "not queried".to_owned() };
    let mut names: Vec<_> = alerts.iter().collect();
    names.sort_by(|(_, one), (_, two)| {
        (one.severity.as_str(), one.from)
            .partial_cmp(&(two.severity.as_str(), two.from))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let word = |(name, alert): (&String, &super::alerts::Active)| format!("{name} {:+.0} s", alert.from);
    let words: Vec<String> = names.into_iter().map(word).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn seconds(time: Option<f64>) -> String {
    time.map_or("–".to_owned(), |time| format!("{time:+.1} s"))
}

/// All rows as JSON.
pub(crate) fn json(rows: &[Row]) -> Value {
    rows.iter().map(row).collect()
}

fn row(row: &Row) -> Value {
    let said = row.said.iter().map(|((gateway, source), followed)| {
        let who = if *gateway { "gateways" } else { "workers" };
        json!({ "who": who, "source": source.name(), "down": followed.down, "up": followed.up, "wrong": followed.wrong })
    });
    let alerts = row.alerts.as_ref().map(|alerts| {
        let alert = |(name, alert): (&String, &super::alerts::Active)| {
            json!({ "name": name, "severity": alert.severity, "from": alert.from, "to": alert.to, "fired": alert.fired })
        };
        alerts.iter().map(alert).collect::<Vec<_>>()
    });
    json!({
        "fault": row.fault.to_string(),
        "ended": row.ended,
        "calls": row.calls,
        "failed": row.failed,
        "acknowledged": row.acknowledged,
        "kinds": row.kinds,
        "median_of_failed": row.median,
        "first_failed": row.first_failed,
        "first_good": row.first_good,
        "last_failed": row.last_failed,
        "last_failed_during": row.last_failed_during,
        "outage": row.outage.map(|outage| [outage.from, outage.to]),
        "said": said.collect::<Vec<_>>(),
        "alerts": alerts,
        "findings": row.findings,
    })
}
