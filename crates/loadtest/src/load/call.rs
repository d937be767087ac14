//! The kinds of calls of a load. Must not depend on how often they are made.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use contract::inventory::v1::Item;
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{
    CheckInventoryRequest, CreateOrderRequest, CreateOrderResponse, GetOrderRequest, ListOrdersRequest,
};
use nats::Options;
use server::client::Connection;
use uuid::Uuid;

use super::options::{Kind, Load};
use super::routed;

/// Page size of order lists.
const PAGE: i32 = 10;

/// Shared by all callers.
pub(crate) struct Calls {
    load: Load,
    channels: Vec<Connection>,
    links: Vec<nats::Connection>,
    known: Arc<[(String, String)]>,
}

/// One caller.
pub(crate) struct Caller {
    kind: Kind,
    channel: Option<Connection>,
    orders: Option<OrderServiceClient<Connection>>,
    /// Deadline of a call.
    pub(super) deadline: Duration,
    nats: Option<async_nats::Client>,
    known: Arc<[(String, String)]>,
    items: usize,
    products: usize,
    dice: fastrand::Rng,
}

impl Calls {
    /// Opens the connections.
    pub(crate) async fn open(load: &Load) -> anyhow::Result<Calls> {
        let (mut channels, mut links) = (Vec::new(), Vec::new());
        for _ in 0..load.connections {
            if load.kind.is_nats() {
                // Parsed as the services do: user or token, percent-decoded, and several servers.
                links.push(nats::Connection::connect(&Options::at(&load.url), "loadtest load").await?);
            } else {
                channels.push(load.access.target(&load.url)?.connect().await?);
            }
        }
        let known = match &load.orders {
            Some(file) => std::fs::read_to_string(file)?.lines().map(known).collect::<anyhow::Result<_>>()?,
            None if matches!(load.kind, Kind::Get | Kind::List) => bail!("this kind needs --orders"),
            None => Arc::default(),
        };
        Ok(Calls { load: load.clone(), channels, links, known })
    }

    /// Caller `number`; callers share the connections evenly.
    pub(crate) fn caller(&self, number: usize) -> Caller {
        let turn = number % self.load.connections;
        Caller {
            kind: self.load.kind,
            channel: self.channels.get(turn).cloned(),
            orders: self.channels.get(turn).cloned().map(OrderServiceClient::new),
            nats: self.links.get(turn).map(|link| link.client().clone()),
            deadline: Duration::from_secs(self.load.deadline),
            known: self.known.clone(),
            items: self.load.items,
            products: self.load.products,
            dice: fastrand::Rng::with_seed(number as u64),
        }
    }
}

fn known(line: &str) -> anyhow::Result<(String, String)> {
    let (id, customer) =
        line.split_once(',').context("expected lines of an order id, a comma, and its customer")?;
    Ok((id.to_owned(), customer.to_owned()))
}

/// The name of product `number`.
pub(crate) fn product(number: usize) -> String {
    format!("product-{number:06}")
}

impl Caller {
    /// Makes one call; an error says what was wrong with the reply.
    pub(crate) async fn call(&mut self) -> Result<(), String> {
        let told = |status: tonic::Status| format!("{:?}: {}", status.code(), status.message());
        if let Some(nats) = self.nats.clone() {
            let asked = async {
                match self.kind {
                    Kind::NatsPages => routed::nats_pages(&nats).await,
                    _ => self.ask(&nats).await,
                }
            };
            return asked.await.map_err(|error| format!("{error:#}"));
        }
        let items = self.items();
        if let Some((path, channel)) = routed::path(self.kind).zip(self.channel.clone()) {
            return routed::call(path, channel, items).await.map_err(told);
        }
        let (id, customer) = self.pick();
        let Some(orders) = &mut self.orders else { return Err("no connection".to_owned()) };
        match self.kind {
            Kind::Create | Kind::Named => {
                let named = self.kind == Kind::Named;
                let request_id = if named { Uuid::new_v4().to_string() } else { String::new() };
                let request = CreateOrderRequest { request_id, customer_id: "ann".to_owned(), items };
                let CreateOrderResponse { order } =
                    orders.create_order(request).await.map_err(told)?.into_inner();
                order.map(drop).ok_or_else(|| "the reply has no order".to_owned())
            }
            Kind::Get => {
                let request = GetOrderRequest { order_id: id.clone() };
                let order = orders.get_order(request).await.map_err(told)?.into_inner().order;
                order
                    .filter(|order| order.order_id == id)
                    .map(drop)
                    .ok_or_else(|| "the reply has another order".to_owned())
            }
            Kind::List => {
                let request = ListOrdersRequest {
                    customer_id: customer,
                    page_size: PAGE,
                    ..ListOrdersRequest::default()
                };
                let page = orders.list_orders(request).await.map_err(told)?.into_inner().orders;
                if page.is_empty() { Err("the page is empty".to_owned()) } else { Ok(()) }
            }
            _ => {
                let asked = items.len();
                let request = CheckInventoryRequest { items };
                let answer = orders.check_inventory(request).await.map_err(told)?.into_inner();
                if answer.items.len() == asked { Ok(()) } else { Err("the reply has other items".to_owned()) }
            }
        }
    }

    async fn ask(&mut self, nats: &async_nats::Client) -> anyhow::Result<()> {
        let items = serde_json::to_vec(&self.items())?;
        let reply = nats.request("check_inventory", Bytes::from(items)).await?;
        let answer: serde_json::Value = serde_json::from_slice(&reply.payload)?;
        answer["items"].as_array().context("the reply has no items").map(drop)
    }

    /// Items of consecutive products, each once.
    fn items(&mut self) -> Vec<Item> {
        let first = self.dice.usize(0..self.products);
        let item = |step| Item { product_id: product((first + step) % self.products), quantity: 1 };
        (0..self.items.min(self.products)).map(item).collect()
    }

    fn pick(&mut self) -> (String, String) {
        if self.known.is_empty() {
            Default::default()
        } else {
            self.known[self.dice.usize(0..self.known.len())].clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use local_nats::Server;

    use super::*;

    #[tokio::test]
    async fn a_user_and_several_servers_in_the_url_are_used() {
        let config = "authorization { users: [ { user: \"ann\", password: \"p@ss\" } ] }".to_owned();
        let options = local_nats::Options { config: Some(config), ..Default::default() };
        let nats = tokio::task::spawn_blocking(|| Server::with(options)).await.unwrap().unwrap();
        let url = |login: &str| nats.url().replace("nats://", &format!("nats://{login}@"));
        let open = async |url: String| Calls::open(&Load::of(Kind::Nats, &url)).await;
        let calls = open(format!("nats://ann:p%40ss@127.0.0.1:1,{}", url("ann:p%40ss"))).await.unwrap();
        calls.caller(0).nats.unwrap().flush().await.unwrap();
        let refused = format!("{:#}", open(url("ann:hush")).await.err().expect("a refusal"));
        assert!(refused.contains("authorization violation") && !refused.contains("hush"), "{refused}");
    }
}
