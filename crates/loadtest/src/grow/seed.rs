//! Fills ORDERS directly with many orders: one order is placed, confirmed and shipped, and copies of its three events
//! are published with other ids. Must not depend on what is measured.

use std::collections::VecDeque;

use anyhow::{Context as _, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream;
use bytes::Bytes;
use contract::header::ORDER_CREATED_SEQUENCE;
use contract::inventory::v1::Item;
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{CreateOrderRequest, OrderStatus, UpdateOrderStatusRequest};
use local_nats::Server;
use nats::{Connection, Options, Store};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::bar;
use crate::deployment::Deployment;
use crate::load::product;

const EVENTS: u64 = 3;
/// Orders per customer.
const EACH: usize = 10;
/// Publishes in flight.
const AT_ONCE: usize = 4_096;
/// Number of orders that are returned, for reads.
const KNOWN: usize = 10_000;
const LIMIT: Duration = Duration::from_secs(10);

/// A stored event.
struct Event {
    subject: String,
    headers: Vec<(String, String)>,
    payload: String,
}

/// Starts a server with this many orders. Returns it, and some of the orders as lines of id and customer.
pub(super) async fn record(products: usize, orders: usize) -> anyhow::Result<(Server, String)> {
    let Deployment { nats, workers, gateway, grpc, .. } = Deployment::open(products, "").await?;
    let (id, customer) = place(grpc).await?;
    drop((workers, gateway));
    let link = Connection::connect(&Options::at(nats.url()), "seed").await?;
    let store = Store::new(link.clone(), order_streams::ORDERS);
    let mut events = Vec::new();
    for sequence in 1..=EVENTS {
        let message = store.get(sequence, Instant::now() + LIMIT).await?.context("an event is missing")?;
        let header = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
            values.first().map(|value| (name.to_string(), value.to_string()))
        };
        events.push(Event {
            subject: message.subject.to_string(),
            headers: message.headers.iter().filter_map(header).collect(),
            payload: String::from_utf8(message.payload.to_vec())?,
        });
    }
    let context = jetstream::new(link.client().clone());
    let bar = bar::bar(orders, "write");
    let ids: Vec<(String, String)> = (1..orders).map(|number| other(number, &customer)).collect();
    let mut acks = VecDeque::new();
    for (order, (new, whose)) in ids.iter().enumerate() {
        let first = (order as u64 + 1) * EVENTS + 1;
        for event in &events {
            let (subject, headers, payload) = event.other(&id, new, &customer, whose, first);
            acks.push_back(context.publish_with_headers(subject, headers, payload).await?.into_future());
        }
        while acks.len() > AT_ONCE {
            acks.pop_front().context("no publish")?.await?;
        }
        bar.inc(1);
    }
    futures_util::future::try_join_all(acks).await?;
    bar.finish_and_clear();
    worked_off(&link, orders as u64 * EVENTS).await?;
    let step = (ids.len() / KNOWN).max(1);
    let known = ids.iter().step_by(step).map(|(id, customer)| format!("{id},{customer}\n")).collect();
    Ok((nats, known))
}

/// A new id, and a customer's name as long as the first one's.
fn other(number: usize, customer: &str) -> (String, String) {
    let id = Uuid::from_u64_pair(fastrand::u64(..), fastrand::u64(..)).to_string();
    (id, format!("c{:0width$}", number / EACH, width = customer.len() - 1))
}

/// Places an order, confirms and ships it.
async fn place(port: u16) -> anyhow::Result<(String, String)> {
    let mut client = OrderServiceClient::connect(format!("http://127.0.0.1:{port}")).await?;
    let items = (0..3).map(|number| Item { product_id: product(number), quantity: 1 }).collect();
    let customer_id = "customer-0001".to_owned();
    let request = CreateOrderRequest {
        request_id: Uuid::new_v4().to_string(),
        customer_id: customer_id.clone(),
        items,
    };
    let order = client.create_order(request).await?.into_inner().order.context("no order")?;
    for status in [OrderStatus::Confirmed, OrderStatus::Shipped] {
        let order_id = order.order_id.clone();
        let request = UpdateOrderStatusRequest { order_id, status: status.into(), ..Default::default() };
        client.update_order_status(request).await?;
    }
    Ok((order.order_id, customer_id))
}

impl Event {
    /// The same event for another order, whose first event has this sequence.
    fn other(
        &self,
        id: &str,
        new: &str,
        customer: &str,
        whose: &str,
        first: u64,
    ) -> (String, HeaderMap, Bytes) {
        let change = |text: &str| text.replace(id, new).replace(customer, whose);
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            if name == ORDER_CREATED_SEQUENCE {
                headers.insert(name.as_str(), first.to_string());
            } else if !name.starts_with("Nats-") {
                headers.insert(name.as_str(), change(value));
            }
        }
        (change(&self.subject), headers, change(&self.payload).into())
    }
}

/// Resets the workers' consumer to the end of the stream, as there are no reservations for the copies.
async fn worked_off(link: &Connection, last: u64) -> anyhow::Result<()> {
    let subject = format!("$JS.API.CONSUMER.RESET.{}.{}", order_streams::ORDERS, contract::subject::CONSUMER);
    let body = serde_json::json!({ "seq": last + 1 }).to_string();
    let reply = link.request(subject, HeaderMap::new(), body.into(), Instant::now() + LIMIT).await?;
    let answer: serde_json::Value = serde_json::from_slice(&reply.payload)?;
    ensure!(answer.get("error").is_none(), "the consumer was not reset: {answer}");
    Ok(())
}
