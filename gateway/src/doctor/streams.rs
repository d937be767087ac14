//! Streams against the routes: those that capture the subject of requests, and those that have to store what routes send
//! or read. Must not change a stream.

use std::sync::Arc;

use catalog::{Durable, Kind, Route, Subscription, covers, overlap};
use futures_util::StreamExt as _;
use futures_util::stream::iter;
use nats::inspect::StreamFacts;
use nats::{StoreError, StreamMismatch};
use tokio::time::timeout_at;

use super::diagnosis::{Diagnosis, Place, Severity, listed};
use super::examination::Examination;

/// How many routes are looked at concurrently.
const CONCURRENT: usize = 16;

pub(super) async fn check(exam: &Examination) -> Diagnosis {
    let mut found = Diagnosis::default();
    if exam.jetstream == Ok(false) {
        // Then there are no streams, and it is told elsewhere where some are needed.
        return found;
    }
    let mut checks = iter(exam.routes()).map(|route| of_route(exam, route)).buffer_unordered(CONCURRENT);
    while let Some(more) = checks.next().await {
        found.merge(more);
    }
    drop(checks);
    if exam.orders {
        found.merge(order_system(exam).await);
    }
    found
}

async fn of_route(exam: &Examination, route: &Arc<Route>) -> Diagnosis {
    let mut found = Diagnosis::default();
    match &route.kind {
        Kind::Request | Kind::RequestMany(_) => captured(exam, route, &mut found).await,
        Kind::EmitDurable(durable) => stored(exam, route, durable, &mut found).await,
        Kind::Subscribe(Subscription { stream: Some(stream), .. }) => {
            read(exam, route, stream, &mut found).await;
        }
        Kind::Emit { .. } | Kind::Subscribe(_) => {}
    }
    found
}

/// A stream that captures requests answers them, with its acknowledgement.
async fn captured(exam: &Examination, route: &Route, found: &mut Diagnosis) {
    match exam.link.streams_of(&route.subject.pattern(), exam.limit()).await {
        Ok(streams) => {
            for stream in streams {
                let problem = "the stream captures the requests, and answers them in place of the service";
                let cure =
                    "take the subject out of the stream (`nats stream edit`), or give the route another";
                found.error("capture", Place::of(route).stream(&stream), problem, cure);
                found.streams.insert(stream);
            }
        }
        Err(why) => found.not_looked_at("capture", Place::of(route), told("$JS.API.STREAM.NAMES", &why)),
    }
}

/// The stream that stores the messages of a route.
async fn stored(exam: &Examination, route: &Route, durable: &Durable, found: &mut Diagnosis) {
    let pattern = route.subject.pattern();
    let capturing = match exam.link.streams_of(&pattern, exam.limit()).await {
        Ok(streams) => streams,
        Err(why) => {
            return found.not_looked_at("stream", Place::of(route), told("$JS.API.STREAM.NAMES", &why));
        }
    };
    let names = match &durable.stream {
        Some(stream) => vec![stream.clone()],
        None if capturing.is_empty() => {
            let problem = "no stream captures the subject: nothing is stored, and calls fail";
            let cure = format!("create one with the subject {pattern}");
            return found.error("stream", Place::of(route), problem, cure);
        }
        None => capturing.clone(),
    };
    for name in names {
        let Some(facts) = facts(exam, route, &name, found).await else { continue };
        has_subject(route, &name, &facts, &capturing, found);
        keeps(Place::of(route).stream(&name), &facts, Severity::Error, found);
        knows_ids(route, durable, &name, &facts, found);
    }
}

/// The stream that a route reads.
async fn read(exam: &Examination, route: &Route, stream: &str, found: &mut Diagnosis) {
    let Some(facts) = facts(exam, route, stream, found).await else { return };
    if facts.stores_others {
        let why = "whether the stream has the subject: it is a mirror, has sources, or transforms subjects";
        found.not_looked_at("stream", Place::of(route).stream(stream), why);
    } else {
        let capturing = exam.link.streams_of(&route.subject.pattern(), exam.limit()).await;
        has_subject(route, stream, &facts, &capturing.unwrap_or_default(), found);
    }
    keeps(Place::of(route).stream(stream), &facts, Severity::Warning, found);
}

async fn facts(
    exam: &Examination,
    route: &Route,
    stream: &str,
    found: &mut Diagnosis,
) -> Option<StreamFacts> {
    let place = || Place::of(route).stream(stream);
    match StreamFacts::read(&exam.link, stream, exam.limit()).await {
        Ok(Some(facts)) => {
            found.streams.insert(stream.to_owned());
            Some(facts)
        }
        Ok(None) => {
            let cure = format!("create it with the subject {}", route.subject.pattern());
            found.error("stream", place(), "the stream does not exist: calls fail", cure);
            None
        }
        Err(why) => {
            found.not_looked_at("stream", place(), told(&format!("$JS.API.STREAM.INFO.{stream}"), &why));
            None
        }
    }
}

/// `capturing`: the streams that capture the subject, or a part of it.
fn has_subject(
    route: &Route,
    stream: &str,
    facts: &StreamFacts,
    capturing: &[String],
    found: &mut Diagnosis,
) {
    let pattern = route.subject.pattern();
    if facts.subjects.iter().any(|subject| covers(subject, &pattern)) {
        return;
    }
    let place = Place::of(route).stream(stream);
    let others: Vec<String> = capturing.iter().filter(|name| *name != stream).cloned().collect();
    let subjects = listed(&facts.subjects);
    let cure = format!("add {pattern} to its subjects (`nats stream edit`)");
    if facts.subjects.iter().any(|subject| overlap(subject, &pattern)) {
        let problem = format!("the stream captures only a part of {pattern}: its subjects are {subjects}");
        found.warning("stream", place, problem, cure);
    } else if others.is_empty() {
        let problem = format!("the stream does not capture {pattern}: its subjects are {subjects}");
        found.error("stream", place, problem, cure);
    } else {
        let others = listed(&others);
        let problem = format!("the stream does not capture {pattern}, but another one does: {others}");
        let cure = format!("move the subject to {stream}, or name the other stream in the route");
        found.error("stream", place, problem, cure);
    }
}

/// Whether what is stored survives. `lost`: how bad it is if a restart loses all of it.
fn keeps(place: Place, facts: &StreamFacts, lost: Severity, found: &mut Diagnosis) {
    if facts.in_memory {
        let problem = "the stream is in memory: a restart of its server loses what is stored";
        found.add(lost, "durability", place.clone(), problem, "create it anew with file storage");
    }
    if facts.clustered && facts.replicas == 1 {
        let problem =
            "the stream has one replica in a cluster: it is gone while its server is, and with its disk";
        found.warning("durability", place, problem, "raise its replicas to 3 (`nats stream edit`)");
    }
}

/// A message is sent again only while the stream surely knows its id.
fn knows_ids(route: &Route, durable: &Durable, stream: &str, facts: &StreamFacts, found: &mut Diagnosis) {
    let repeats = durable.streams || (durable.message_id.is_some() && route.retries > 0);
    if !repeats || facts.duplicate_window > route.budget() {
        return;
    }
    let problem = format!(
        "the stream knows ids for {:?} (duplicate window), but attempts may follow one another for {:?}: later ones are \
         not made, and calls end with OUTCOME_UNKNOWN",
        facts.duplicate_window,
        route.budget()
    );
    let longer = route.budget().as_secs() + 1;
    let cure =
        format!("raise its duplicate window to {longer}s (`nats stream edit`), or lower retries or timeout");
    found.warning("duplicate-window", Place::of(route).stream(stream), problem, cure);
}

/// The streams of the order system, each alone, and then all of them as at the start of `serve`.
async fn order_system(exam: &Examination) -> Diagnosis {
    let mut found = Diagnosis::default();
    for name in order_streams::ALL {
        let place = || Place::default().stream(name);
        match StreamFacts::read(&exam.link, name, exam.limit()).await {
            Ok(Some(facts)) => {
                found.streams.insert(name.to_owned());
                keeps(place(), &facts, Severity::Error, &mut found);
            }
            Ok(None) => {
                let cure = "create it with `gateway provision`; after a loss, restore a backup first (docs/recover.md)";
                found.error("stream", place(), "the stream of the order system does not exist", cure);
            }
            Err(why) => found.not_looked_at("stream", place(), told("$JS.API.STREAM.INFO", &why)),
        }
    }
    if found.streams.len() == order_streams::ALL.len() {
        match timeout_at(exam.deadline, order_streams::open(&exam.link, 1, false)).await {
            // Told by other checks.
            Ok(Ok(_) | Err(StreamMismatch::Captures { .. } | StreamMismatch::Server { .. })) => {}
            Ok(Err(why)) => {
                let cure = "see docs/operate.md: the gateway does not start like this";
                found.error("order-system", Place::default(), why, cure);
            }
            Err(_) => found.not_looked_at("order-system", Place::default(), "no answer in time"),
        }
    }
    found
}

fn told(asked: &str, why: &StoreError) -> String {
    format!("{asked}: {why}")
}
