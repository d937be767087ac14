//! JetStream's report on the servers of a stream: the leader, and the followers that it hears. Must do no I/O.

use std::time::Duration;

use serde::Deserialize;

/// A leader hears from each of its followers every second. One silent for this long is frozen, cut off or dead.
const UNHEARD: Duration = Duration::from_secs(3);

/// The servers of a stream, as reported by one of them; a leader's report says which followers it hears.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Cluster {
    #[serde(default)]
    pub(crate) leader: String,
    #[serde(default)]
    pub(crate) replicas: Vec<Replica>,
}

/// A server with a follower replica.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Replica {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) current: bool,
    #[serde(default)]
    pub(crate) offline: bool,
    /// Nanoseconds since the leader last heard from it.
    #[serde(default)]
    pub(crate) active: u64,
    /// By how many entries it lags.
    #[serde(default)]
    pub(crate) lag: u64,
}

/// How many of a stream's replicas are reachable, according to one report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quorum {
    /// There is a leader.
    pub(crate) led: bool,
    /// Replicas that the leader hears, including itself.
    pub(crate) heard: usize,
    /// All replicas.
    pub(crate) of: usize,
}

impl Quorum {
    /// A standalone server, which leads all of its streams.
    pub(crate) const ALONE: Quorum = Quorum { led: true, heard: 1, of: 1 };

    /// Whether the leader hears a majority.
    pub(crate) fn holds(self) -> bool {
        self.led && self.heard > self.of / 2
    }
}

impl Cluster {
    /// The quorum according to this report.
    pub(crate) fn quorum(&self) -> Quorum {
        if self.leader.is_empty() {
            // The server that answered is not the leader, and is one of the replicas.
            return Quorum { led: false, heard: 0, of: self.replicas.len() };
        }
        let unheard = u64::try_from(UNHEARD.as_nanos()).unwrap_or(u64::MAX);
        let heard = self.replicas.iter().filter(|peer| !peer.offline && peer.active < unheard).count();
        Quorum { led: true, heard: heard + 1, of: self.replicas.len() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quorum(json: &str) -> Quorum {
        serde_json::from_str::<Cluster>(json).unwrap().quorum()
    }

    #[test]
    fn a_leader_that_hears_one_of_two_followers_has_a_quorum() {
        let said = quorum(
            r#"{"leader":"n1","replicas":[{"name":"n2","current":true,"active":900000000},
                {"name":"n3","current":false,"active":3100000000}]}"#,
        );
        assert_eq!(said, Quorum { led: true, heard: 2, of: 3 });
        assert!(said.holds());
    }

    #[test]
    fn a_leader_that_hears_nobody_has_none_although_they_count_as_current() {
        let said = quorum(
            r#"{"leader":"n1","replicas":[{"name":"n2","current":true,"active":3100000000},
                {"name":"n3","current":true,"offline":true,"active":900000000}]}"#,
        );
        assert_eq!(said, Quorum { led: true, heard: 1, of: 3 });
        assert!(!said.holds());
    }

    #[test]
    fn without_a_leader_there_is_no_quorum_whoever_answers() {
        let said = quorum(
            r#"{"replicas":[{"name":"n1","current":true,"active":4000000000},{"name":"n2"},{"name":"n3"}]}"#,
        );
        assert!(!said.holds() && !said.led);
    }

    #[test]
    fn a_server_on_its_own_leads() {
        assert!(quorum(r#"{"leader":"NB2AXTOV"}"#).holds() && Quorum::ALONE.holds());
    }
}
