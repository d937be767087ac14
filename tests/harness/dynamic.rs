//! A gateway that serves a proto file, and what stands around it.

use std::path::PathBuf;

use async_nats::Client;
use bytes::Bytes;
use catalog_sources::Options;
use futures_util::StreamExt as _;
use gateway::Gateway;
use gateway::config::Serve;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::system::until;
use super::{client, codec};

/// A nats-server, a gateway for the routes of `fixtures/kinds.proto` or another proto, and a connection for its services.
pub struct Dynamic {
    _nats: local_nats::Server,
    pub gateway: Gateway,
    pub channel: Channel,
    pub client: Client,
    _folder: TempDir,
}

/// The configuration of a gateway for this proto, in this folder.
pub fn serving(folder: &TempDir, proto: &str, url: &str) -> Serve {
    let file: PathBuf = folder.path().join("service.proto");
    std::fs::write(&file, proto).unwrap();
    Serve { sources: Options { proto: vec![file], ..Options::default() }, threads: 1, ..Serve::at(url) }
}

impl Dynamic {
    pub async fn start() -> Dynamic {
        Dynamic::with(|_, _| {}).await
    }

    /// The same, with the gateway's configuration changed, which is given the server's port.
    pub async fn with(change: impl FnOnce(&mut Serve, u16)) -> Dynamic {
        Dynamic::of(include_str!("../fixtures/kinds.proto"), change).await
    }

    /// The same for the routes of this proto.
    pub async fn of(proto: &str, change: impl FnOnce(&mut Serve, u16)) -> Dynamic {
        let nats = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = serving(&folder, proto, &nats.url());
        change(&mut config, nats.port());
        let gateway = Gateway::start(config).await.unwrap();
        let address = format!("http://{}", gateway.grpc_addr());
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let client = async_nats::connect(nats.url()).await.unwrap();
        until("the gateway is up", async || gateway.up("") == Some(true)).await;
        Dynamic { _nats: nats, gateway, channel, client, _folder: folder }
    }

    /// Calls a unary rpc of `library.v1.Library`.
    pub async fn ask(&self, rpc: &str, message: impl Into<Bytes>) -> Result<Bytes, Status> {
        codec::ask(&self.channel, &path(rpc), message.into(), &[]).await
    }

    /// Calls an rpc that streams replies.
    pub async fn open(&self, rpc: &str, message: impl Into<Bytes>) -> Result<Streaming<Bytes>, Status> {
        codec::call(&self.channel, &path(rpc), message.into(), &[]).await
    }

    /// Calls an rpc that streams replies, and reads it to its end.
    pub async fn all(&self, rpc: &str, message: impl Into<Bytes>) -> (Vec<String>, Result<(), Status>) {
        match self.open(rpc, message).await {
            Ok(stream) => rest(stream).await,
            Err(status) => (Vec::new(), Err(status)),
        }
    }

    /// Answers each message on a subject with this work.
    pub async fn serve<F: Future<Output = ()> + Send + 'static>(
        &self,
        subject: &str,
        mut answer: impl FnMut(Client, async_nats::Message) -> F + Send + 'static,
    ) {
        let mut requests = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.settled().await;
        let client = self.client.clone();
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                answer(client.clone(), request).await;
            }
        });
    }

    /// Returns when the server has processed what the services have sent.
    pub async fn settled(&self) {
        client::settled(&self.client).await;
    }
}

/// The texts of all messages, and how the stream ends.
pub async fn rest(mut stream: Streaming<Bytes>) -> (Vec<String>, Result<(), Status>) {
    let mut texts = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(message)) => texts.push(text(&message)),
            Ok(None) => return (texts, Ok(())),
            Err(status) => return (texts, Err(status)),
        }
    }
}

/// The string in field 1 of a message.
pub fn text(message: &[u8]) -> String {
    let [0x0a, rest @ ..] = message else { return String::new() };
    let digits = rest.iter().position(|byte| *byte < 128).unwrap() + 1;
    let length = rest[..digits].iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 127));
    String::from_utf8(rest[digits..digits + length].to_vec()).unwrap()
}

fn path(rpc: &str) -> String {
    format!("/library.v1.Library/{rpc}")
}
