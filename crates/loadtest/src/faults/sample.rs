//! Samples health, /healthz and the console of each gateway and worker, several times per second. Must not depend on
//! how calls ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use server::health_client::GatewayClient;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::load::since;
use super::truth::{Said, Sample};
use crate::soak::plan::Target;
use crate::soak::site::Instance;
use crate::usage::http;

const EVERY: Duration = Duration::from_millis(200);
/// Timeout of a probe. Kubernetes' default is 1 s.
const LIMIT: Duration = Duration::from_secs(1);

/// What is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// `grpc.health.v1`, overall status.
    Grpc,
    /// The status code of `/healthz`.
    Healthz,
    /// `status` in the console's JSON; gateways only.
    Console,
}

impl Source {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Source::Grpc => "gRPC health",
            Source::Healthz => "/healthz",
            Source::Console => "console",
        }
    }
}

/// One source of one process, and all its samples.
#[derive(Debug, Clone)]
pub(crate) struct Signal {
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) source: Source,
    pub(crate) samples: Vec<Sample>,
}

/// Samples until it is dropped.
pub(crate) struct Sampler {
    signals: Vec<(Signal, Arc<Mutex<Vec<Sample>>>)>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Sampler {
    /// Starts. Times are seconds since `zero`.
    pub(crate) fn start(instances: &[Instance], zero: Instant) -> Sampler {
        let (mut signals, mut tasks) = (Vec::new(), Vec::new());
        for instance in instances {
            let console = matches!(instance.target, Target::Gateway(_)).then_some(Source::Console);
            for source in [Source::Grpc, Source::Healthz].into_iter().chain(console) {
                let samples = Arc::new(Mutex::default());
                let name = instance.name.clone();
                signals.push((
                    Signal { name, target: instance.target, source, samples: Vec::new() },
                    Arc::clone(&samples),
                ));
                tasks.push(AbortOnDropHandle::new(tokio::spawn(watch(
                    instance.clone(),
                    source,
                    zero,
                    samples,
                ))));
            }
        }
        Sampler { signals, _tasks: tasks }
    }

    /// Stops, and returns the samples.
    pub(crate) fn stop(self) -> Vec<Signal> {
        let told = |(signal, samples): (Signal, Arc<Mutex<Vec<Sample>>>)| {
            let samples = std::mem::take(&mut *samples.lock());
            Signal { samples, ..signal }
        };
        self.signals.into_iter().map(told).collect()
    }
}

async fn watch(instance: Instance, source: Source, zero: Instant, samples: Arc<Mutex<Vec<Sample>>>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let said = timeout(LIMIT, ask(&instance, source)).await.unwrap_or(Said::Nothing);
        // The time of the reply counts, as it tells the state of that moment.
        let at = since(zero, Instant::now());
        samples.lock().push(Sample { at, said });
    }
}

async fn ask(instance: &Instance, source: Source) -> Said {
    let serving = match source {
        Source::Grpc => {
            let address = SocketAddr::from(([127, 0, 0, 1], instance.port));
            let health = async { GatewayClient::connect(address).await?.health("").await };
            health.await.map(|word| word == "SERVING")
        }
        Source::Healthz => http(instance.http, "/healthz", LIMIT).await.map(|(code, _)| code == 200),
        Source::Console => http(instance.http, "/console.json", LIMIT).await.and_then(|(_, body)| {
            let figures: Value = serde_json::from_str(&body)?;
            Ok(figures["status"] == "SERVING")
        }),
    };
    match serving {
        Ok(true) => Said::Serving,
        Ok(false) => Said::NotServing,
        Err(_) => Said::Nothing,
    }
}
