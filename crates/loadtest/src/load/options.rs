//! What load is generated. Must not generate it.

use server::client::ClientOptions;

/// Default deadline of a call, in seconds.
const DEADLINE: u64 = 20;

/// A kind of call.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// CheckInventory
    Check,
    /// CreateOrder without a request_id
    Create,
    /// CreateOrder with a request_id
    Named,
    /// GetOrder
    Get,
    /// ListOrders, the first page of one customer
    List,
    /// A NATS request to the subject behind CheckInventory, with the client library's own request
    Nats,
    /// The messages of CheckInventory by a route of a file, in JSON
    Routed,
    /// The same, in protobuf
    Binary,
    /// A stream of messages by a route of a file
    Pages,
    /// The same messages, as replies to a NATS request
    NatsPages,
}

/// Options of `loadtest load`
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Load {
    /// Address or URL of a gRPC server, or of NATS
    pub(crate) url: String,
    /// Kind of call
    #[arg(long, value_enum)]
    pub(crate) kind: Kind,
    /// Connections
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: usize,
    /// Most concurrent calls
    #[arg(long, default_value_t = 64)]
    pub(crate) callers: usize,
    /// Duration of the measurement, in seconds
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Duration of the warm-up before it, in seconds
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warm: f64,
    /// Calls per second (open loop); without it, each caller calls again at once (closed loop)
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Items per request
    #[arg(long, default_value_t = 3)]
    pub(crate) items: usize,
    /// Products that requests are spread over
    #[arg(long, default_value_t = 1_000)]
    pub(crate) products: usize,
    /// File with orders to read: an order id, a comma and its customer per line
    #[arg(long)]
    pub(crate) orders: Option<String>,
    /// Process whose CPU time and memory are measured: name=pid
    #[arg(long, value_parser = watched)]
    pub(crate) watch: Vec<(String, u32)>,
    /// Deadline of a call, in seconds
    #[arg(long, default_value_t = DEADLINE, value_name = "SECONDS")]
    pub(crate) deadline: u64,
    #[command(flatten)]
    pub(crate) access: ClientOptions,
}

fn watched(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("expected name=pid")?;
    Ok((name.to_owned(), pid.parse().map_err(|_| "the pid is not a number")?))
}

impl Kind {
    /// Whether these calls go to NATS.
    pub(crate) fn is_nats(self) -> bool {
        matches!(self, Kind::Nats | Kind::NatsPages)
    }
}

impl Load {
    /// Load of this kind, with defaults.
    pub(crate) fn of(kind: Kind, url: &str) -> Load {
        Load {
            url: url.to_owned(),
            kind,
            connections: 4,
            callers: 64,
            seconds: 3.0,
            warm: 0.5,
            rate: None,
            items: 3,
            products: 1_000,
            orders: None,
            watch: Vec::new(),
            deadline: DEADLINE,
            access: ClientOptions::default(),
        }
    }

    /// One call at a time.
    pub(crate) fn alone(self) -> Load {
        Load { connections: 1, callers: 1, ..self }
    }
}
