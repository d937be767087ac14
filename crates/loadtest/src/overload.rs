//! `loadtest overload`: the goodput of a service under five times its capacity. Starts everything itself. The service
//! has a fixed capacity, so that the load generator's share of the machine does not matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contract::inventory::v1::Item;
use contract::orders::v1::CheckInventoryRequest;
use contract::orders::v1::order_service_client::OrderServiceClient;
use futures_util::StreamExt as _;
use local_nats::spare_port;
use nats::{Connection, Options};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::process::{Process, serves};
use crate::table::grouped;

const ROUTE: &str = "check_inventory";
const ANSWER: &str = r#"{"available":true,"items":[{"productId":"lamp","requested":1,"available":1}]}"#;
const CONNECTIONS: usize = 8;
/// Offered load, as a multiple of the peak.
const TIMES: f64 = 5.0;
/// Load that is offered afterwards, as a share of the peak.
const CALM: f64 = 0.7;
/// Least goodput under overload, as a share of the peak.
const LEAST: f64 = 0.8;
/// Time limit for recovery, and the share of calls that then succeeds.
const RECOVERED: (Duration, f64) = (Duration::from_secs(5), 0.95);
const TICK: Duration = Duration::from_millis(5);
const WINDOW: Duration = Duration::from_millis(500);

/// Options of `loadtest overload`
#[derive(clap::Args)]
pub(crate) struct Overload {
    /// Requests that the service processes concurrently
    #[arg(long, default_value_t = 16)]
    at_once: usize,
    /// Time that the service takes for each, in milliseconds
    #[arg(long, default_value_t = 20)]
    takes: u64,
    /// Deadline of each call, in milliseconds
    #[arg(long, default_value_t = 1_000)]
    deadline: u64,
    /// Duration of the overload, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// How calls ended.
#[derive(Default)]
struct Ends {
    ok: AtomicU64,
    shed: AtomicU64,
    late: AtomicU64,
    other: AtomicU64,
    /// Total duration of shed calls, in microseconds.
    shed_micros: AtomicU64,
}

/// A reading of those counts.
#[derive(Clone, Copy)]
struct Counts {
    at: Instant,
    ok: u64,
    shed: u64,
    late: u64,
    other: u64,
}

/// Starts a gateway and a service, finds the peak, offers five times as much, and then less.
pub(crate) async fn run(options: Overload) -> anyhow::Result<bool> {
    let nats = tokio::task::spawn_blocking(local_nats::Server::start).await??;
    let logs = tempfile::tempdir()?;
    let [grpc, http] = [spare_port()?, spare_port()?];
    let _gateway = Process::gateway(&nats.url(), grpc, http, &[], &logs.path().join("gateway"))?;
    serves(grpc, "liveness").await?;
    let link = Connection::connect(&Options::at(nats.url()), "a slow service").await?;
    serve(&link, options.at_once, Duration::from_millis(options.takes)).await?;
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{grpc}"))?;
    let load = Load {
        channels: (0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect(),
        deadline: Duration::from_millis(options.deadline),
        ends: Arc::default(),
    };

    let peak = load.closed(options.at_once * 2, Duration::from_secs(5)).await;
    cli::say!("peak          {:>8} replies/s", grouped(peak as u64));
    let length = Duration::from_secs(options.seconds);
    let mut calls = JoinSet::new();
    let (before, after) = load.offer(&mut calls, peak * TIMES, length).await;
    let goodput = after.rate(&before, |counts| counts.ok);
    let share = goodput / peak;
    let rate = |part: fn(&Counts) -> u64| grouped(after.rate(&before, part) as u64);
    cli::say!("offered       {:>8} calls/s for {} s", grouped((peak * TIMES) as u64), options.seconds);
    cli::say!("goodput       {:>8} replies/s, {:.0} % of the peak", grouped(goodput as u64), share * 100.0);
    let shed = load.ends.shed.load(Ordering::Relaxed).max(1);
    let mean = Duration::from_micros(load.ends.shed_micros.load(Ordering::Relaxed) / shed);
    cli::say!("shed          {:>8} calls/s, after {mean:.1?} on average", rate(|counts| counts.shed));
    cli::say!(
        "late          {:>8} calls/s; other errors {}",
        rate(|counts| counts.late),
        rate(|counts| counts.other)
    );

    let recovered = load.recover(&mut calls, peak * CALM).await;
    let (limit, well) = RECOVERED;
    match recovered {
        Some(after) => cli::say!(
            "recovered     {:>8.1} s after the overload: {:.0} % are answered in time",
            after.as_secs_f64(),
            well * 100.0
        ),
        None => cli::say!("FAILED: not recovered after {limit:?}"),
    }
    Ok(share >= LEAST && recovered.is_some())
}

/// A service of fixed capacity. It refuses nothing; requests above its capacity queue.
async fn serve(link: &Connection, at_once: usize, takes: Duration) -> anyhow::Result<()> {
    let client = link.client().clone();
    let requests = client.subscribe(ROUTE).await?;
    client.flush().await?;
    tokio::spawn(requests.for_each_concurrent(at_once, move |request| {
        let client = client.clone();
        async move {
            sleep(takes).await;
            if let Some(reply) = request.reply {
                // An error means that the run is over.
                let _ = client.publish(reply, ANSWER.into()).await;
            }
        }
    }));
    Ok(())
}

#[derive(Clone)]
struct Load {
    channels: Vec<Channel>,
    deadline: Duration,
    ends: Arc<Ends>,
}

impl Load {
    /// A closed loop with this many callers. Returns the rate of replies.
    async fn closed(&self, callers: usize, length: Duration) -> f64 {
        let end = Instant::now() + length;
        let mut all = JoinSet::new();
        let before = self.ends.counts();
        for number in 0..callers {
            let load = self.clone();
            all.spawn(async move {
                while Instant::now() < end {
                    load.call(number).await;
                }
            });
        }
        all.join_all().await;
        self.ends.counts().rate(&before, |counts| counts.ok)
    }

    /// An open loop at this rate. Returns the counts at the beginning and the end of its second half.
    async fn offer(&self, calls: &mut JoinSet<()>, rate: f64, length: Duration) -> (Counts, Counts) {
        let begun = Instant::now();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (mut sent, mut half) = (0, None);
        while begun.elapsed() < length {
            ticks.tick().await;
            while (sent as f64) < begun.elapsed().as_secs_f64() * rate {
                let (load, number) = (self.clone(), sent);
                calls.spawn(async move { load.call(number).await });
                sent += 1;
            }
            while calls.try_join_next().is_some() {}
            if begun.elapsed() >= length / 2 {
                half.get_or_insert_with(|| self.ends.counts());
            }
        }
        let after = self.ends.counts();
        (half.unwrap_or(after), after)
    }

    /// Offers a load within the capacity until nearly all calls succeed. Returns how long that takes.
    async fn recover(&self, calls: &mut JoinSet<()>, rate: f64) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < RECOVERED.0 {
            let before = self.ends.counts();
            self.offer(calls, rate, WINDOW).await;
            let after = self.ends.counts();
            let all = |counts: &Counts| counts.ok + counts.shed + counts.late + counts.other;
            let share = after.rate(&before, |counts| counts.ok) / after.rate(&before, all);
            if share >= RECOVERED.1 {
                return Some(begun.elapsed().saturating_sub(WINDOW));
            }
        }
        None
    }

    async fn call(&self, number: usize) {
        let mut client = OrderServiceClient::new(self.channels[number % self.channels.len()].clone());
        let items = vec![Item { product_id: "lamp".to_owned(), quantity: 1 }];
        let mut request = Request::new(CheckInventoryRequest { items });
        request.set_timeout(self.deadline);
        let begun = Instant::now();
        let end = client.check_inventory(request).await;
        let count = match end.as_ref().map_err(|status| status.code()) {
            Ok(_) if begun.elapsed() <= self.deadline => &self.ends.ok,
            Ok(_) | Err(Code::DeadlineExceeded | Code::Cancelled) => &self.ends.late,
            Err(Code::ResourceExhausted) => {
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.ends.shed_micros.fetch_add(micros, Ordering::Relaxed);
                &self.ends.shed
            }
            Err(_) => &self.ends.other,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Ends {
    fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let at = Instant::now();
        Counts { at, ok: of(&self.ok), shed: of(&self.shed), late: of(&self.late), other: of(&self.other) }
    }
}

impl Counts {
    /// The rate per second since another reading.
    fn rate(&self, since: &Counts, part: impl Fn(&Counts) -> u64) -> f64 {
        let time = self.at.duration_since(since.at).as_secs_f64().max(f64::EPSILON);
        (part(self) - part(since)) as f64 / time
    }
}
