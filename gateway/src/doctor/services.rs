//! Who answers each route: by what instances of services say of themselves (ADR-32), else by the subscriptions that the
//! servers' monitoring reports. Must not send anything on a route's subject.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bridge::discovery::{self, Instance};
use catalog::{Kind, Replies, Route, overlap};
use nats::inspect;

use super::diagnosis::{Diagnosis, Place, Severity, listed, several};
use super::examination::Examination;

/// How long answers of instances are collected. A busy one answers late.
const WAIT: Duration = Duration::from_secs(1);
/// Stands for a value in a subject with fields.
const ANY: &str = "any";

/// Something that gets the requests of a route.
struct Responder {
    name: String,
    /// Empty for none; `None`: unknown.
    queue_group: Option<String>,
}

/// What is known of the responders of a route.
enum Known {
    Are(Vec<Responder>),
    Nothing(String),
}

pub(super) async fn check(exam: &Examination) -> Diagnosis {
    let mut found = Diagnosis::default();
    let instances = instances(exam).await;
    if instances.is_none() {
        let why = "nobody answers $SRV.INFO and $SRV.STATS, not even the server: the user may have no right to publish there";
        found.not_looked_at("versions", Place::default(), why);
    }
    versions(exam, instances.as_deref().unwrap_or_default(), &mut found);
    let asked = |route: &&Arc<Route>| {
        route.kind.asks() || matches!(route.kind, Kind::Emit { require_subscriber: true })
    };
    for route in exam.routes().filter(asked) {
        match responders(exam, route, instances.as_deref()).await {
            Known::Nothing(why) => found.not_looked_at("responders", Place::of(route), why),
            Known::Are(list) if list.is_empty() => {
                let problem = "nobody subscribes to the subject: calls end with NO_RESPONDERS";
                let cure = "start the service, on this subject and in the account of the gateway's user";
                let severity = if route.maintenance { Severity::Warning } else { Severity::Error };
                found.add(severity, "responders", Place::of(route), problem, cure);
            }
            Known::Are(list) => groups(route, &list, &mut found),
        }
    }
    found
}

/// All instances that answer. Those of another account may answer `$SRV.STATS` alone, which health asks.
async fn instances(exam: &Examination) -> Option<Vec<Instance>> {
    let wait = WAIT.min(exam.left());
    let (told, counted) = tokio::join!(
        discovery::instances(&exam.link, "$SRV.INFO", wait),
        discovery::instances(&exam.link, "$SRV.STATS", wait)
    );
    if told.is_none() && counted.is_none() {
        return None;
    }
    let mut all = told.unwrap_or_default();
    let others = counted.into_iter().flatten().filter(|one| all.iter().all(|known| known.id != one.id));
    let others: Vec<Instance> = others.collect();
    all.extend(others);
    Some(all)
}

/// Those that instances announce, or else those that subscribe.
async fn responders(exam: &Examination, route: &Route, instances: Option<&[Instance]>) -> Known {
    let pattern = route.subject.pattern();
    let mut announced = Vec::new();
    for instance in instances.unwrap_or_default() {
        for endpoint in instance.endpoints.iter().filter(|endpoint| overlap(&endpoint.subject, &pattern)) {
            let Instance { name, version, id, .. } = instance;
            let queue_group = endpoint.queue_group.clone();
            announced.push(Responder { name: format!("{name} {version} ({id})"), queue_group });
        }
    }
    if !announced.is_empty() || (route.trusted && instances.is_some()) {
        return Known::Are(announced);
    }
    let Some(monitor) = &exam.monitor else {
        let why = "no instance announces it ($SRV.INFO), and whether another service subscribes is not known; set \
                   GW_NATS_MONITOR_URL to the monitoring ports of all servers";
        return Known::Nothing(why.to_owned());
    };
    let Ok(user) = &exam.user else {
        return Known::Nothing("no instance announces it, and the user's account is not known".to_owned());
    };
    let subject = pattern.replace('*', ANY);
    let read =
        tokio::time::timeout_at(exam.deadline, inspect::subscriptions(monitor, &user.account, &subject));
    match read.await {
        Ok(Ok(list)) if list.is_empty() && !route.subject.is_fixed() => {
            Known::Nothing(format!("nobody subscribes to {subject}; whether to others like it is not known"))
        }
        Ok(Ok(list)) => Known::Are(list.into_iter().map(Responder::from).collect()),
        Ok(Err(why)) => Known::Nothing(why),
        Err(_) => Known::Nothing("no answer from the monitoring ports in time".to_owned()),
    }
}

impl From<inspect::Subscribed> for Responder {
    fn from(of: inspect::Subscribed) -> Responder {
        Responder { name: format!("client {}", of.client), queue_group: Some(of.queue_group) }
    }
}

/// Whether each request gets to one of them, or to all of them where the route says so.
fn groups(route: &Route, list: &[Responder], found: &mut Diagnosis) {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for responder in list {
        let Some(group) = &responder.queue_group else {
            let why = format!("{} does not say its queue group", responder.name);
            return found.not_looked_at("queue-group", Place::of(route), why);
        };
        groups.entry(group).or_default().push(responder.name.clone());
    }
    if matches!(route.kind, Kind::Emit { .. }) {
        return;
    }
    let place = || Place::of(route);
    if matches!(route.kind, Kind::RequestMany(Replies { all: true, .. })) {
        if let Some((group, names)) =
            groups.iter().find(|(group, names)| !group.is_empty() && names.len() > 1)
        {
            let problem = format!(
                "all instances have to answer, but {} share the queue group {group}: one of them does",
                listed(names)
            );
            found.error(
                "queue-group",
                place(),
                problem,
                "remove the queue group from the service's endpoint",
            );
        }
        return;
    }
    // Without a queue group, each gets every request.
    let alone = groups.get("").map_or(0, Vec::len);
    let receivers = alone + groups.keys().filter(|group| !group.is_empty()).count();
    let wanted = if route.queue_group.is_empty() { "one queue group" } else { &*route.queue_group };
    if receivers > 1 {
        let told = groups.iter().map(|(group, names)| match *group {
            "" => format!("without a queue group: {}", listed(names)),
            group => format!("in {group}: {}", listed(names)),
        });
        let told = told.collect::<Vec<_>>().join("; ");
        let problem = format!("{} get each request, not one ({told})", several(receivers, "receiver"));
        found.error("queue-group", place(), problem, format!("start all instances in {wanted}"));
    } else if !route.queue_group.is_empty() && !groups.contains_key(&*route.queue_group) {
        let told = groups.iter().map(|(group, names)| {
            format!("that of {} is {}", listed(names), if group.is_empty() { "none" } else { *group })
        });
        let told = told.collect::<Vec<_>>().join(", ");
        let problem = format!("the route's queue group is {wanted}, {told}");
        found.warning("queue-group", place(), problem, "use one name in the route and in the service");
    }
}

/// Services whose instances have different versions.
fn versions(exam: &Examination, instances: &[Instance], found: &mut Diagnosis) {
    let patterns: Vec<String> = exam.routes().map(|route| route.subject.pattern()).collect();
    let serves = |instance: &&Instance| {
        let mut subjects = instance.endpoints.iter().map(|endpoint| &endpoint.subject);
        subjects.any(|subject| patterns.iter().any(|pattern| overlap(subject, pattern)))
    };
    let mut services: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for instance in instances.iter().filter(serves) {
        let versions = services.entry(&instance.name).or_default();
        versions.entry(&instance.version).or_default().insert(&instance.id);
    }
    for (name, versions) in services.into_iter().filter(|(_, versions)| versions.len() > 1) {
        let told = versions.iter().map(|(version, ids)| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            format!("{version} ({})", listed(&ids))
        });
        let problem =
            format!("its instances have different versions: {}", told.collect::<Vec<_>>().join(", "));
        let cure = "finish the update, or stop the instances that were left behind";
        found.warning("versions", Place::default().instance(name), problem, cure);
    }
}
