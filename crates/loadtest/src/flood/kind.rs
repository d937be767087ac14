//! The attacks by name, and the expected outcome of each. Must not depend on how an attack is done.

use gateway::config::Limits;

/// An attack.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Calls that are reset at once, as many as the server accepts
    RapidReset,
    /// The same in bursts below the number that closes a connection
    PatientReset,
    /// CONTINUATION frames without END_HEADERS
    Continuation,
    /// SETTINGS, each of which has to be acknowledged
    Settings,
    /// The same, and the acknowledgements are not read
    SettingsUnread,
    /// PINGs, 100,000 and more
    Pings,
    /// The same, and the acknowledgements are not read
    PingsUnread,
    /// Acknowledgements of PINGs that were not sent
    Pongs,
    /// Frames without effect: unknown types, PRIORITY, small WINDOW_UPDATEs
    Junk,
    /// Short header blocks that decompress to large headers
    HpackBomb,
    /// Short gzip messages that decompress to large ones
    GzipBomb,
    /// Messages one byte above the size limit
    Oversize,
    /// Calls whose responses are never read
    SlowReaders,
    /// Idle connections, half of which send the preface and half nothing
    Idle,
    /// The same, more than the connection limit
    Crowd,
    /// TLS handshakes that stop halfway
    Handshakes,
    /// Health checks with unfinished messages of 4 MiB, 600 per connection
    HealthUnfinished,
    /// The same for server reflection
    ReflectionUnfinished,
    /// Unfinished orders of the largest permitted size, 512 per connection
    HalfSent,
    /// Health watches, 1,024 per connection
    HealthWatches,
    /// Messages in DATA frames of one byte
    OneByteData,
    /// The same, with padding
    OneBytePadded,
    /// The same, for calls that are refused
    OneByteRefused,
    /// Responses read through a window that opens one byte at a time
    WindowDrip,
    /// Idle connections to the HTTP port, under a low limit on open files
    IdleHttp,
    /// Idle connections to the health port
    IdleHealth,
    /// Repeated requests of /metrics
    MetricsHammered,
    /// Repeated requests of /console.json
    ConsoleHammered,
    /// New products, 1,000 per request
    Products,
}

/// The process that is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Gateway,
    /// A gateway with TLS.
    Tls,
    Worker,
    /// A gateway with a low limit on open files.
    FewFiles,
    /// A worker with a low limit on open files.
    FewFilesWorker,
}

/// The port that is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Grpc,
    Health,
    Http,
}

/// The expected outcome for the attacker's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Each is closed; the attacker opens another.
    Closed,
    /// They stay open and are throttled.
    Slowed,
    /// They stay open, and each call is refused.
    Refused,
    /// Those that send nothing are closed; those that send the preface may stay.
    Sorted,
    /// At most this many may stay open.
    Bounded(u64),
    /// They stay open, and what they hold is bounded by the limit on calls.
    Borne,
}

impl Victim {
    /// The gateway whose clients are measured.
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

    /// Its memory limit as shipped (`deploy/kubernetes/base`), less what orders take.
    pub(super) fn memory(self) -> u64 {
        match self {
            Victim::Gateway | Victim::Tls | Victim::FewFiles => 512 << 20,
            Victim::Worker | Victim::FewFilesWorker => 768 << 20,
        }
    }

    /// Its name in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Victim::Gateway | Victim::Tls | Victim::FewFiles => "gateway",
            Victim::Worker | Victim::FewFilesWorker => "worker",
        }
    }
}

impl Kind {
    /// The title of its line in the report.
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
        // Last, as it leaves products behind.
        Kind::Products,
    ];

    pub(super) fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether the number of connections matters, not what they send.
    pub(super) fn counts_heads(self) -> bool {
        use Kind::{Crowd, Handshakes, Idle, IdleHealth, IdleHttp};
        matches!(self, Idle | Crowd | Handshakes | IdleHttp | IdleHealth)
    }

    /// Whether to run the same attack on a bare server for comparison. That has no TLS, no connection limit, no lists,
    /// pages or products, and it reads frames of one byte as fast as they are sent, which compares nothing. It refuses
    /// calls to services that it does not have as quickly as others.
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

    /// The processes and ports that are attacked.
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

    /// The process whose memory is measured.
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
