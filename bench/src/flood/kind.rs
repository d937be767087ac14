//! The attacks by their names, and what has to become of each. Must never know how one is made.

use super::wire::Told;

/// GOAWAY's code for too much.
const CALM: u32 = 11;

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
    /// Each ends with ENHANCE_YOUR_CALM, whatever else it does.
    Calmed,
    /// It stays, and what it may do is bounded.
    Held,
    /// Each that says nothing is closed, the others may stay.
    Sorted,
    /// So many are turned away.
    TurnedAway(u64),
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
}

impl Fate {
    /// Whether it was so.
    pub(super) fn met(self, told: &Told) -> bool {
        match self {
            Fate::Calmed => told.made > 0 && told.goodbyes.get(&CALM).is_some_and(|calmed| *calmed > 0),
            Fate::Held => told.made > 0,
            Fate::Sorted | Fate::TurnedAway(_) => true,
        }
    }
}
