//! Places the orders in a closed loop: each caller waits for its reply before it takes the next order. Must not check
//! replies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use contract::orders::v1::CreateOrderRequest;
use indicatif::ProgressBar;
use tokio::task::JoinSet;

use super::basket::Basket;
use crate::bar::bar;
use crate::server::{GivenUp, Server};
use crate::trouble::Verdict;

/// How to place the orders.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Concurrent orders.
    pub(crate) callers: u16,
    /// Time for all attempts of one order.
    pub(crate) budget: Duration,
}

/// The orders and their outcomes.
#[derive(Debug, Default)]
pub(crate) struct Placing {
    /// The orders of the file.
    pub(crate) baskets: Arc<Vec<Basket>>,
    /// The outcome of each.
    pub(crate) outcomes: Vec<Outcome>,
    /// Durations of the orders that were sent, including all attempts and the pauses between them.
    pub(crate) latencies: Vec<Duration>,
    /// Total duration.
    pub(crate) took: Duration,
}

/// The outcome of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The order exists, placed now or by an earlier run.
    Placed {
        /// Its id.
        order_id: String,
    },
    /// The server refused it.
    Refused {
        /// The reason.
        reason: String,
        /// An earlier attempt got no reply, so it may have created the order.
        unsure: bool,
    },
    /// The server found invalid fields.
    Rejected(Vec<String>),
    /// A value does not fit the message; it was not sent.
    Unfit(Vec<String>),
    /// No reply; the order may have been created.
    Failed(String),
}

impl Placing {
    /// The orders that a reply named, with their ids.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (&Basket, &String)> {
        self.baskets.iter().zip(&self.outcomes).filter_map(|(basket, outcome)| match outcome {
            Outcome::Placed { order_id } => Some((basket, order_id)),
            _ => None,
        })
    }
}

/// Places all orders.
pub(crate) async fn all(server: &Arc<Server>, baskets: Vec<Basket>, plan: Plan) -> anyhow::Result<Placing> {
    let baskets = Arc::new(baskets);
    let bar = bar(baskets.len(), "orders");
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..plan.callers {
        let caller = Caller {
            server: Arc::clone(server),
            baskets: Arc::clone(&baskets),
            next: Arc::clone(&next),
            budget: plan.budget,
            bar: bar.clone(),
        };
        callers.spawn(caller.run());
    }
    let mut ended = Vec::with_capacity(baskets.len());
    while let Some(caller) = callers.join_next().await {
        ended.extend(caller?);
    }
    let took = start.elapsed();
    bar.finish_and_clear();
    ended.sort_unstable_by_key(|(place, ..)| *place);
    let latencies = ended.iter().filter_map(|(_, _, latency)| *latency).collect();
    let outcomes = ended.into_iter().map(|(_, outcome, _)| outcome).collect();
    Ok(Placing { baskets, outcomes, latencies, took })
}

struct Caller {
    server: Arc<Server>,
    baskets: Arc<Vec<Basket>>,
    next: Arc<AtomicUsize>,
    budget: Duration,
    bar: ProgressBar,
}

impl Caller {
    async fn run(self) -> Vec<(usize, Outcome, Option<Duration>)> {
        let mut ended = Vec::new();
        loop {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(basket) = self.baskets.get(place) else { return ended };
            let (outcome, latency) = self.place(basket).await;
            ended.push((place, outcome, latency));
            self.bar.inc(1);
        }
    }

    async fn place(&self, basket: &Basket) -> (Outcome, Option<Duration>) {
        if !basket.unfit.is_empty() {
            return (Outcome::Unfit(basket.unfit.clone()), None);
        }
        let request = CreateOrderRequest {
            request_id: basket.id.clone(),
            customer_id: basket.customer.clone(),
            items: basket.items.clone(),
        };
        let start = Instant::now();
        let outcome = match self.server.create(&request, self.budget).await {
            Ok(order) => Outcome::Placed { order_id: order.order_id },
            Err(given_up) => Outcome::of(&given_up),
        };
        (outcome, Some(start.elapsed()))
    }
}

impl Outcome {
    fn of(given_up: &GivenUp) -> Outcome {
        let last = &given_up.last;
        match last.verdict() {
            Verdict::Refused => Outcome::Refused { reason: last.reason(), unsure: given_up.unsure },
            Verdict::Rejected => Outcome::Rejected(last.fields().to_vec()),
            Verdict::Repeat | Verdict::Failed => Outcome::Failed(last.kind()),
        }
    }

    /// Whether the order may exist although no reply said so.
    pub(crate) fn unsure(&self) -> bool {
        match self {
            Outcome::Failed(_) => true,
            Outcome::Refused { unsure, .. } => *unsure,
            Outcome::Placed { .. } | Outcome::Rejected(_) | Outcome::Unfit(_) => false,
        }
    }
}
