//! The state of NATS servers, combined from their monitoring ports and from what the leaders of our streams report
//! about followers. Time is an argument. Must not do I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use nats::nodes::{Condition, Node, Report};
use nats::stats::StreamState;
use telemetry::{Exposition, Source};
use tokio::time::Instant;

/// Monitoring data older than this is not used.
const STALE: Duration = Duration::from_secs(25);
/// A follower that its leader has not heard from for this long is not heard: a leader hears its followers every second.
const UNHEARD: Duration = Duration::from_secs(3);
/// The name of the leader outside a cluster.
const ALONE: &str = "alone";

/// The last results from the monitoring ports.
#[derive(Default)]
pub(super) struct Nodes {
    seen: BTreeMap<String, Seen>,
    looked: Option<Instant>,
}

struct Seen {
    condition: Condition,
    /// Since when it has been in this condition.
    since: Instant,
    /// The last known report.
    report: Option<Report>,
}

/// The state of a node as it is known now.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) state: &'static str,
    /// How long it has been in this state, if known.
    pub(super) since: Option<Duration>,
    /// The streams whose leader it is.
    pub(super) leads: Vec<&'static str>,
    /// The streams of which it has an outdated replica, and the largest lag among them.
    pub(super) behind: Vec<&'static str>,
    pub(super) lag: u64,
    pub(super) version: Option<String>,
    pub(super) storage: Option<(u64, u64)>,
}

/// What the leaders of streams report about a node.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Rumour {
    leads: bool,
    offline: bool,
    silent: Duration,
}

impl Nodes {
    pub(super) fn take(&mut self, found: Vec<Node>, now: Instant) {
        for Node { url, condition, report } in found {
            let seen = self.seen.entry(url).or_insert(Seen { condition, since: now, report: None });
            if seen.condition != condition {
                (seen.condition, seen.since) = (condition, now);
            }
            // A server that no longer answers keeps its name; its storage use is unknown.
            seen.report =
                report.or_else(|| seen.report.take().map(|known| Report { storage: None, ..known }));
        }
        self.looked = Some(now);
    }

    /// All known nodes, by name. `own` is the server of our connection, `streams` are those that were read recently.
    pub(super) fn view<'a>(
        &self,
        streams: impl Iterator<Item = &'a StreamState>,
        own: &str,
        now: Instant,
    ) -> Vec<View> {
        let mut views: BTreeMap<String, (View, Option<Rumour>)> = BTreeMap::new();
        for stream in streams {
            hear(&mut views, stream, own);
        }
        let fresh = self.looked.is_some_and(|looked| now.duration_since(looked) < STALE);
        for (url, seen) in &self.seen {
            let name = seen.report.as_ref().map_or(url, |report| &report.name);
            let (view, rumour) = views.entry(name.clone()).or_default();
            let monitored = fresh.then_some(seen.condition);
            view.state = state(monitored, *rumour);
            // Only the condition from monitoring has a start time.
            view.since = (view.state == word(seen.condition)).then(|| now.duration_since(seen.since));
            let report = seen.report.as_ref();
            view.version = report.map(|report| report.version.clone());
            view.storage = report.and_then(|report| report.storage).filter(|_| fresh);
        }
        let named = |(name, (mut view, rumour)): (String, (View, Option<Rumour>))| {
            if view.state.is_empty() {
                view.state = state(None, rumour);
                let silent = rumour.map(|rumour| rumour.silent);
                view.since = silent.filter(|_| view.state != "up");
            }
            View { name, ..view }
        };
        views.into_iter().map(named).collect()
    }
}

fn hear(views: &mut BTreeMap<String, (View, Option<Rumour>)>, stream: &StreamState, own: &str) {
    let leader = if stream.leader == ALONE { own } else { &stream.leader };
    if !leader.is_empty() {
        let (view, rumour) = views.entry(leader.to_owned()).or_default();
        view.leads.push(stream.name);
        rumour.get_or_insert_default().leads = true;
    }
    // Without a leader, the answering server knows nothing about the others.
    for follower in stream.followers.iter().filter(|_| !leader.is_empty()) {
        let (view, rumour) = views.entry(follower.name.clone()).or_default();
        if !follower.current || follower.offline {
            view.behind.push(stream.name);
            view.lag = view.lag.max(follower.lag);
        }
        let rumour = rumour.get_or_insert_default();
        rumour.offline |= follower.offline;
        rumour.silent = rumour.silent.max(follower.silent);
    }
}

/// The state of a node, from its monitoring port and from what leaders report about it.
fn state(monitored: Option<Condition>, rumour: Option<Rumour>) -> &'static str {
    let heard = rumour.map(|of| of.leads || (!of.offline && of.silent < UNHEARD));
    match (monitored, heard) {
        (Some(Condition::Up), Some(false)) => "cut off",
        (Some(Condition::Up), _) => "up",
        (Some(Condition::Frozen), _) => "frozen",
        (Some(Condition::Refused), _) => "gone",
        // We may not have access to its monitoring port; leaders hear it.
        (_, Some(true)) => "up",
        (_, Some(false)) if rumour.is_some_and(|of| of.offline) => "gone",
        (_, Some(false)) => "not heard",
        (Some(Condition::Unreachable), None) => "unreachable",
        (Some(Condition::Unreadable) | None, None) => "unknown",
    }
}

/// The state by monitoring alone.
fn word(condition: Condition) -> &'static str {
    state(Some(condition), None)
}

impl Source for Nodes {
    fn collect(&self, page: &mut Exposition) {
        for (url, seen) in &self.seen {
            let name = seen.report.as_ref().map_or(url.as_str(), |report| &report.name);
            let label = [("server", name)];
            let up = seen.condition == Condition::Up;
            page.flag("nats_server_up", "Whether a server's monitoring port answers.", &label, up);
            if let Some((used, most)) = seen.report.as_ref().and_then(|report| report.storage) {
                let help = "Bytes that JetStream stores on a server.";
                page.gauge("nats_server_storage_bytes", help, &label, used as f64);
                let help = "Bytes that JetStream may store on a server.";
                page.gauge("nats_server_storage_limit_bytes", help, &label, most as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nats::stats::ReplicaState;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn stream(leader: &str, followers: &[(&str, bool, u64)]) -> StreamState {
        let follower = |(name, current, silent): &(&str, bool, u64)| ReplicaState {
            name: (*name).to_owned(),
            current: *current,
            silent: Duration::from_secs(*silent),
            lag: if *current { 0 } else { 12 },
            offline: false,
        };
        let followers = followers.iter().map(follower).collect();
        StreamState { name: "ORDERS", leader: leader.to_owned(), followers, ..StreamState::default() }
    }

    fn node(name: &str, condition: Condition) -> Node {
        let report = (condition == Condition::Up).then(|| Report {
            name: name.to_owned(),
            version: "2".to_owned(),
            storage: Some((1, 4)),
        });
        Node { url: format!("http://{name}"), condition, report }
    }

    #[test]
    fn a_frozen_node_keeps_its_name_and_says_since_when_and_not_how_full_it_is() {
        let (mut nodes, start) = (Nodes::default(), Instant::now());
        nodes.take(vec![node("n1", Condition::Up)], start);
        assert_eq!(nodes.view([].iter(), "", start)[0].storage, Some((1, 4)));
        for second in 1..6 {
            nodes.take(vec![node("n1", Condition::Frozen)], start + second * SECOND);
        }
        let view = nodes.view([].iter(), "", start + 6 * SECOND).remove(0);
        assert_eq!((&*view.name, view.state, view.since), ("n1", "frozen", Some(5 * SECOND)));
        assert_eq!(view.storage, None);
        assert_eq!(nodes.view([].iter(), "", start + 60 * SECOND)[0].state, "unknown", "that was long ago");
    }

    #[test]
    fn without_monitoring_the_leaders_say_whom_they_hear() {
        let streams = [stream("n1", &[("n2", true, 0), ("n3", false, 9)])];
        let views = Nodes::default().view(streams.iter(), "n1", Instant::now());
        let states: Vec<_> = views.iter().map(|view| (&*view.name, view.state)).collect();
        assert_eq!(states, [("n1", "up"), ("n2", "up"), ("n3", "not heard")]);
        assert_eq!(
            (views[0].leads.as_slice(), views[2].behind.as_slice(), views[2].lag),
            (&["ORDERS"][..], &["ORDERS"][..], 12)
        );
    }

    #[test]
    fn a_node_that_answers_and_that_leaders_do_not_hear_is_cut_off() {
        let (mut nodes, now) = (Nodes::default(), Instant::now());
        nodes.take(vec![node("n1", Condition::Up), node("n2", Condition::Up)], now);
        let views = nodes.view([stream("n1", &[("n2", false, 9)])].iter(), "n1", now);
        assert_eq!((views[0].state, views[1].state), ("up", "cut off"));
    }

    #[test]
    fn a_stream_without_a_leader_says_nothing_of_nodes() {
        let views = Nodes::default().view([stream("", &[("n2", true, 9)])].iter(), "n1", Instant::now());
        assert_eq!(views, []);
    }
}
