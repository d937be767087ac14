//! The attacks by their names, and what has to become of each. Must never know how one is made.

use gateway::config::Limits;

/// An attack.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Calls that are reset at once, as many as are taken
    RapidReset,
    /// The same in bursts that stay below what closes a connection
    PatientReset,
    /// Headers that never end
    Continuation,
    /// SETTINGS, of which every one is to be answered
    Settings,
    /// The same, and no answer is read
    SettingsUnread,
    /// PINGs, 100,000 and more
    Pings,
    /// The same, and no answer is read
    PingsUnread,
    /// Answers to PINGs that nobody sent
    Pongs,
    /// Frames of kinds that mean nothing
    Junk,
    /// Headers that are short and unfold
    HpackBomb,
    /// Messages that are short and unfold
    GzipBomb,
    /// Messages one byte over the limit
    Oversize,
    /// Calls whose answers are never read
    SlowReaders,
    /// Connections that say hello, or nothing at all, and stay
    Idle,
    /// The same, more than there are seats
    Crowd,
    /// TLS handshakes that stop in the middle
    Handshakes,
}

/// What has to become of the attacker's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Each is closed; the attacker's part is to make another.
    Closed,
    /// They stay, and are read at a rate.
    Slowed,
    /// They stay, and each call is refused.
    Refused,
    /// Who says nothing is closed, and who says hello may stay.
    Sorted,
    /// So many may stay at the most.
    Bounded(u64),
    /// They stay, and what they hold is bounded by the number of calls.
    Borne,
}

impl Kind {
    /// In the order of the report.
    pub(super) const ALL: [Kind; 16] = [
        Kind::RapidReset,
        Kind::PatientReset,
        Kind::Continuation,
        Kind::Settings,
        Kind::SettingsUnread,
        Kind::Pings,
        Kind::PingsUnread,
        Kind::Pongs,
        Kind::Junk,
        Kind::HpackBomb,
        Kind::GzipBomb,
        Kind::Oversize,
        Kind::SlowReaders,
        Kind::Idle,
        Kind::Crowd,
        Kind::Handshakes,
    ];

    pub(super) fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it is a matter of how many there are, not of how much they send.
    pub(super) fn counts_heads(self) -> bool {
        matches!(self, Kind::Idle | Kind::Crowd | Kind::Handshakes)
    }

    pub(super) fn tls(self) -> bool {
        self == Kind::Handshakes
    }

    pub(super) fn fate(self) -> Fate {
        match self {
            Kind::RapidReset | Kind::PatientReset => Fate::Slowed,
            Kind::Settings | Kind::SettingsUnread | Kind::Pings | Kind::PingsUnread => Fate::Slowed,
            Kind::Pongs | Kind::Junk => Fate::Slowed,
            Kind::Continuation | Kind::HpackBomb => Fate::Closed,
            Kind::GzipBomb | Kind::Oversize => Fate::Refused,
            Kind::SlowReaders => Fate::Borne,
            Kind::Idle => Fate::Sorted,
            Kind::Crowd => Fate::Bounded(Limits::default().max_connections.into()),
            Kind::Handshakes => Fate::Bounded(Limits::default().max_handshakes.into()),
        }
    }
}
