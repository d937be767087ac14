//! Calls of routes that a gateway takes from a file, by their paths. Must not depend on how often they are made.

use anyhow::Context as _;
use async_nats::Client;
use bytes::Bytes;
use contract::inventory::v1::Item;
use contract::orders::v1::{CheckInventoryRequest, CheckInventoryResponse};
use futures_util::StreamExt as _;
use http::uri::PathAndQuery;
use server::client::Connection;
use tonic::client::Grpc;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::options::Kind;
use crate::shop;

/// A message of a stream.
#[derive(Clone, PartialEq, prost::Message)]
struct Page {
    #[prost(string, tag = "1")]
    text: String,
}

/// The rpc of this kind of call.
pub(super) fn path(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Routed => Some("/bench.v1.Shop/Check"),
        Kind::Binary => Some("/bench.v1.Shop/CheckBinary"),
        Kind::Pages => Some("/bench.v1.Shop/Pages"),
        _ => None,
    }
}

/// Makes one call. A stream is read to its end.
pub(super) async fn call(path: &'static str, channel: Connection, items: Vec<Item>) -> Result<(), Status> {
    let asked = items.len();
    let (mut grpc, request) = (Grpc::new(channel), Request::new(CheckInventoryRequest { items }));
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let uri = PathAndQuery::from_static(path);
    if path.ends_with("/Pages") {
        let codec = ProstCodec::<CheckInventoryRequest, Page>::default();
        let mut pages = grpc.server_streaming(request, uri, codec).await?.into_inner();
        let mut count = 0;
        while pages.message().await?.is_some() {
            count += 1;
        }
        return if count == shop::COUNT { Ok(()) } else { Err(Status::data_loss("pages are missing")) };
    }
    let codec = ProstCodec::<CheckInventoryRequest, CheckInventoryResponse>::default();
    let reply = grpc.unary(request, uri, codec).await?.into_inner();
    if reply.items.len() == asked { Ok(()) } else { Err(Status::data_loss("the reply has other items")) }
}

/// The same stream by NATS alone: one request, and replies until an empty one.
pub(super) async fn nats_pages(client: &Client) -> anyhow::Result<()> {
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await?;
    client.publish_with_reply(shop::PAGES, inbox, Bytes::from_static(b"{}")).await?;
    let mut count = 0;
    loop {
        let reply = replies.next().await.context("the subscription has ended")?;
        if reply.payload.is_empty() {
            break;
        }
        count += 1;
    }
    anyhow::ensure!(count == shop::COUNT, "{count} pages instead of {}", shop::COUNT);
    Ok(())
}
