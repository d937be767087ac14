//! Messages at a size limit and one byte above it, in both directions, and compressed messages: the status of each.
//! Must not depend on load.

use std::path::Path;

use anyhow::Context as _;
use contract::inventory::v1::{Item, ItemAvailability};
use contract::orders::v1::CheckInventoryResponse;
use futures_util::StreamExt as _;
use gateway::config::Limits;
use local_nats::spare_port;
use nats::{Connection, Options};
use prost::Message as _;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::deployment;
use crate::process::{Process, serves};

/// So that NATS passes a reply that is too large for the gateway.
const NATS: &str = "max_payload: 8388608";
const CHECK: &str = "/orders.v1.OrderService/CheckInventory";
const SUBJECT: &str = "check_inventory";
/// The client's limit on replies.
const LARGEST: usize = 64 << 20;

/// CheckInventoryRequest with an unknown field.
#[derive(Clone, PartialEq, prost::Message)]
struct Padded {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Item>,
    #[prost(bytes = "vec", tag = "1000")]
    padding: Vec<u8>,
}

/// Tries each, and prints its status. True if all are as expected.
pub(super) async fn run() -> anyhow::Result<bool> {
    let limits = Limits::default();
    let nats = deployment::nats(NATS).await?;
    let logs = tempfile::tempdir()?;
    let [grpc, http] = [spare_port()?, spare_port()?];
    let _gateway = Process::gateway(&nats.url(), grpc, http, &[], &log(logs.path()))?;
    serves(grpc, "liveness").await?;
    let link = Connection::connect(&Options::at(nats.url()), "a service with large replies").await?;
    serve(&link).await?;
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{grpc}"))?.connect().await?;
    let (most, reply) = (limits.max_request_bytes, limits.max_reply_bytes);
    let small = 64;
    let tries = [
        ("a request of GW_MAX_REQUEST_BYTES", most, small, None, Code::Ok),
        ("a request one byte over", most + 1, small, None, Code::ResourceExhausted),
        ("a reply of GW_MAX_REPLY_BYTES", small, reply, None, Code::Ok),
        ("a reply one byte over", small, reply + 1, None, Code::ResourceExhausted),
        ("a request declared as gzip", small, small, Some("gzip"), Code::Unimplemented),
        ("… deflate", small, small, Some("deflate"), Code::Unimplemented),
        ("… zstd", small, small, Some("zstd"), Code::Unimplemented),
    ];
    let mut all = true;
    for (what, request, reply, encoding, wanted) in tries {
        let code = ask(&channel, request, reply, encoding).await?;
        let good = code == wanted;
        all &= good;
        cli::say!("{}  {what:32}  {code:?}", if good { "PASS" } else { "FAIL" });
    }
    Ok(all)
}

fn log(folder: &Path) -> std::path::PathBuf {
    folder.join("gateway")
}

/// A call with a message of `size` bytes that asks for a reply of `reply` bytes.
async fn ask(channel: &Channel, size: usize, reply: usize, encoding: Option<&str>) -> anyhow::Result<Code> {
    let item = Item { product_id: format!("reply-{reply}"), quantity: 1 };
    let mut message = Padded { items: vec![item], padding: Vec::new() };
    // One more byte of padding may add a byte to its length field.
    while message.encoded_len() < size {
        message.padding.resize(message.padding.len() + (size - message.encoded_len()).div_ceil(2), 0);
    }
    anyhow::ensure!(message.encoded_len() == size || size < LARGEST && message.padding.len() < 128);
    let mut request = Request::new(message);
    if let Some(encoding) = encoding {
        request.metadata_mut().insert("grpc-encoding", encoding.parse()?);
    }
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(LARGEST);
    grpc.ready().await?;
    let codec = ProstCodec::<Padded, CheckInventoryResponse>::default();
    let answer = grpc.unary(request, PathAndQuery::from_static(CHECK), codec).await;
    Ok(answer.map_or_else(|status| status.code(), |_| Code::Ok))
}

/// A service whose reply has as many bytes as the product's name says.
async fn serve(link: &Connection) -> anyhow::Result<()> {
    let client = link.client().clone();
    let mut requests = client.subscribe(SUBJECT).await?;
    client.flush().await?;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let (Some(to), Ok(answer)) = (request.reply, answer(&request.payload)) else { continue };
            // An error means that the run is over.
            let _ = client.publish(to, answer.into()).await;
        }
    });
    Ok(())
}

fn answer(request: &[u8]) -> anyhow::Result<Vec<u8>> {
    let items: Vec<Item> = serde_json::from_slice(request)?;
    let name = &items.first().context("no item")?.product_id;
    let size: usize = name.strip_prefix("reply-").context("another product")?.parse()?;
    let item = ItemAvailability { product_id: String::new(), requested: 1, available: 1 };
    let mut answer = CheckInventoryResponse { available: true, items: vec![item] };
    while answer.encoded_len() < size {
        let missing = (size - answer.encoded_len()).div_ceil(2);
        answer.items[0].product_id.extend(std::iter::repeat_n('x', missing));
    }
    Ok(serde_json::to_vec(&answer)?)
}
