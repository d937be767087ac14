//! Placing orders: so many callers in a closed loop, each waiting for its answer before it takes the next order. Must
//! never know whether an answer is right.

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

/// How to place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Orders at the same time.
    pub(crate) callers: u16,
    /// The time for all attempts of one order.
    pub(crate) budget: Duration,
}

/// Orders and what came of them.
#[derive(Debug, Default)]
pub(crate) struct Placing {
    /// The orders of the file.
    pub(crate) baskets: Arc<Vec<Basket>>,
    /// What came of each.
    pub(crate) outcomes: Vec<Outcome>,
    /// How long each one took that was sent, with all its attempts and the waits between them.
    pub(crate) latencies: Vec<Duration>,
    /// How long all of them took.
    pub(crate) took: Duration,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is an order, made now or by an earlier run.
    Placed {
        /// Its id.
        order_id: String,
    },
    /// The server said no.
    Refused {
        /// Why.
        reason: String,
        /// An earlier attempt got no answer, so that it may have made the order.
        unsure: bool,
    },
    /// The server found bad fields.
    Rejected(Vec<String>),
    /// Its values do not fit the message; it was not sent.
    Unfit(Vec<String>),
    /// No answer; the order may have been made.
    Failed(String),
}

impl Placing {
    /// The orders that an answer named, with their ids.
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

    /// Whether the order may be there although no answer said so.
    pub(crate) fn unsure(&self) -> bool {
        match self {
            Outcome::Failed(_) => true,
            Outcome::Refused { unsure, .. } => *unsure,
            Outcome::Placed { .. } | Outcome::Rejected(_) | Outcome::Unfit(_) => false,
        }
    }
}
