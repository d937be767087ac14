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
    /// Checks of health whose messages of 4 MiB are never finished, 600 a connection
    HealthUnfinished,
    /// The same of reflection
    ReflectionUnfinished,
    /// Orders of the largest size that are never finished, 512 a connection
    HalfSent,
    /// Watches of health, 1,024 a connection
    HealthWatches,
    /// Messages in frames of one byte
    OneByteData,
    /// The same, each frame padded
    OneBytePadded,
    /// The same, of calls that are refused
    OneByteRefused,
    /// Answers that are let out a byte at a time
    WindowDrip,
    /// Connections over HTTP that stay, where files are few
    IdleHttp,
    /// Connections to where health is asked for, that stay
    IdleHealth,
    /// The figures for Prometheus, again and again
    MetricsHammered,
    /// The console's figures, again and again
    ConsoleHammered,
    /// Products that nobody has heard of, 1,000 in a request
    Products,
}

/// Who is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Gateway,
    /// One with TLS.
    Tls,
    Worker,
    /// A gateway that may have few files.
    FewFiles,
    /// A worker that may have few files.
    FewFilesWorker,
}

/// On which of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Grpc,
    Health,
    Http,
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

impl Victim {
    /// Whose clients notice what it bears.
    pub(super) fn served_by(self) -> Victim {
        match self {
            Victim::Gateway | Victim::Worker => Victim::Gateway,
            Victim::Tls => Victim::Tls,
            Victim::FewFiles | Victim::FewFilesWorker => Victim::FewFiles,
        }
    }

    /// Whether it is a gateway.
    pub(super) fn serves_calls(self) -> bool {
        matches!(self, Victim::Gateway | Victim::Tls | Victim::FewFiles)
    }

    /// What it may have where it is deployed as shipped (`deploy/kubernetes/base`).
    pub(super) fn memory(self) -> u64 {
        match self {
            Victim::Gateway | Victim::Tls | Victim::FewFiles => 512 << 20,
            Victim::Worker | Victim::FewFilesWorker => 768 << 20,
        }
    }

    /// As it stands in a line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Victim::Gateway | Victim::Tls | Victim::FewFiles => "gateway",
            Victim::Worker | Victim::FewFilesWorker => "worker",
        }
    }
}

impl Kind {
    /// What stands at the beginning of its line.
    pub(super) fn title(self, (victim, port): (Victim, Port)) -> String {
        match (victim, port) {
            (_, Port::Grpc) => self.name(),
            (Victim::Gateway, Port::Health) => format!("{} GW_HEALTH_ADDR", self.name()),
            (_, Port::Health | Port::Http) => format!("{} {}", self.name(), victim.name()),
        }
    }

    /// In the order of the report.
    pub(super) const ALL: [Kind; 29] = [
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
        Kind::HealthUnfinished,
        Kind::ReflectionUnfinished,
        Kind::HalfSent,
        Kind::HealthWatches,
        Kind::OneByteData,
        Kind::OneBytePadded,
        Kind::OneByteRefused,
        Kind::WindowDrip,
        Kind::IdleHttp,
        Kind::IdleHealth,
        Kind::MetricsHammered,
        Kind::ConsoleHammered,
        // It leaves products behind.
        Kind::Products,
    ];

    pub(super) fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it is a matter of how many there are, not of how much they send.
    pub(super) fn counts_heads(self) -> bool {
        use Kind::{Crowd, Handshakes, Idle, IdleHealth, IdleHttp};
        matches!(self, Idle | Crowd | Handshakes | IdleHttp | IdleHealth)
    }

    /// Whether it is measured what the same attack on a bare server makes of the machine. That has no TLS, no limit on
    /// connections, no list, no pages and no products; and frames of one byte it reads as fast as they are sent, which is no
    /// measure. Calls of services that it has not are refused as quickly as any.
    pub(super) fn has_like(self) -> bool {
        use Kind::{
            GzipBomb, HealthUnfinished, HpackBomb, Oversize, PatientReset, RapidReset, ReflectionUnfinished,
        };
        matches!(self, RapidReset | PatientReset | Kind::Continuation | HpackBomb | GzipBomb | Oversize)
            || matches!(self, Kind::Settings | Kind::SettingsUnread | Kind::Pings | Kind::PingsUnread)
            || matches!(
                self,
                Kind::Pongs | Kind::Junk | Kind::HalfSent | HealthUnfinished | ReflectionUnfinished
            )
    }

    /// Where it is done.
    pub(super) fn places(self) -> &'static [(Victim, Port)] {
        use Port::{Grpc, Health, Http};
        use Victim::{FewFiles, FewFilesWorker, Gateway, Tls, Worker};
        match self {
            Kind::Handshakes => &[(Tls, Grpc)],
            Kind::HealthUnfinished | Kind::HealthWatches => {
                &[(Gateway, Grpc), (Gateway, Health), (Worker, Health)]
            }
            Kind::IdleHttp => &[(FewFiles, Http), (FewFilesWorker, Http)],
            Kind::IdleHealth => &[(Gateway, Health), (Worker, Health)],
            Kind::MetricsHammered => &[(Gateway, Http), (Worker, Http)],
            Kind::ConsoleHammered => &[(Gateway, Http)],
            _ => &[(Gateway, Grpc)],
        }
    }

    /// Whose memory it is about, if it is attacked there.
    pub(super) fn bears(self, attacked: Victim) -> Victim {
        if self == Kind::Products { Victim::Worker } else { attacked }
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
            Kind::Crowd => Fate::Bounded(gateway::config::MAX_CONNECTIONS.into()),
            Kind::Handshakes => Fate::Bounded(Limits::default().max_handshakes.into()),
            Kind::HealthUnfinished | Kind::ReflectionUnfinished | Kind::HalfSent => Fate::Borne,
            Kind::HealthWatches | Kind::WindowDrip | Kind::IdleHttp | Kind::IdleHealth => Fate::Borne,
            Kind::OneByteData | Kind::OneBytePadded | Kind::OneByteRefused => Fate::Borne,
            Kind::MetricsHammered | Kind::ConsoleHammered | Kind::Products => Fate::Borne,
        }
    }
}
