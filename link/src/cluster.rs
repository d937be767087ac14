//! What JetStream says of the servers behind a stream: who leads, and whom the leader hears. Must never ask anybody.

use std::time::Duration;

use serde::Deserialize;

/// A leader hears each of its followers every second. One that was silent for this long is frozen, cut off or dead.
const UNHEARD: Duration = Duration::from_secs(3);

/// The servers of a stream, as one of them answers; a leader's answer says whom it hears.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Cluster {
    #[serde(default)]
    pub(crate) leader: String,
    #[serde(default)]
    pub(crate) replicas: Vec<Replica>,
}

/// A server that has a replica and does not lead.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Replica {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) current: bool,
    #[serde(default)]
    pub(crate) offline: bool,
    /// Nanoseconds since it was heard.
    #[serde(default)]
    pub(crate) active: u64,
    /// Entries that it is behind.
    #[serde(default)]
    pub(crate) lag: u64,
}

/// How many of a stream's replicas can be counted on, as one answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quorum {
    /// There is a leader.
    pub(crate) led: bool,
    /// Replicas that the leader hears, itself included.
    pub(crate) heard: usize,
    /// All replicas.
    pub(crate) of: usize,
}

impl Quorum {
    /// A server on its own, which leads all of its streams.
    pub(crate) const ALONE: Quorum = Quorum { led: true, heard: 1, of: 1 };

    /// Whether a majority is heard.
    pub(crate) fn holds(self) -> bool {
        self.led && self.heard > self.of / 2
    }
}

impl Cluster {
    /// What this answer says of the quorum.
    pub(crate) fn quorum(&self) -> Quorum {
        if self.leader.is_empty() {
            // Whoever answers does not lead, and is among the replicas.
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
