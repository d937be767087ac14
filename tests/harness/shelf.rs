//! A gateway for the contract of `fixtures/shelf.proto`, whose messages a stream stores.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use catalog::Catalog;
use catalog_sources::Options;
use futures_util::Stream;
use gateway::config::Serve;
use gateway::{Gateway, contracts};
use prost::Message;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::codec;
use super::proxy::Proxy;
use super::roles;
use super::system::until;

const SHELF: &str = include_str!("../fixtures/shelf.proto");

/// A gateway for the contract, over a proxy, and streams that the test makes.
pub struct Shelf {
    gateway: Mutex<Option<Gateway>>,
    pub channel: Channel,
    pub proxy: Proxy,
    pub jetstream: jetstream::Context,
    _nats: local_nats::Server,
    _folder: TempDir,
}

/// What a stream stored, as a reply says.
#[derive(Clone, PartialEq, Message)]
pub struct Stored {
    #[prost(string, tag = "1")]
    pub stream: String,
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    #[prost(bool, tag = "3")]
    pub duplicate: bool,
}

/// What a stream stored of a stream, as a reply says.
#[derive(Clone, PartialEq, Message)]
pub struct Loaded {
    #[prost(uint64, tag = "1")]
    pub stored: u64,
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    #[prost(string, tag = "3")]
    pub stream: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Book {
    #[prost(string, tag = "1")]
    pub shelf: String,
    #[prost(string, tag = "2")]
    pub book_id: String,
    #[prost(string, tag = "3")]
    pub title: String,
    #[prost(uint64, optional, tag = "4")]
    pub revision: Option<u64>,
}

impl Shelf {
    /// A gateway without a stream.
    pub async fn bare() -> Shelf {
        Shelf::with(local_nats::Options::default(), |_| {}).await
    }

    /// The same, with these options of its servers.
    pub async fn with(options: local_nats::Options, change: impl FnOnce(&mut Serve)) -> Shelf {
        let nats = tokio::task::spawn_blocking(|| local_nats::Server::with(options)).await.unwrap().unwrap();
        let proxy = Proxy::to(nats.port()).await;
        let (folder, file) = folder();
        let mut config = serving(&file, &proxy.url());
        change(&mut config);
        let gateway = Gateway::start(config).await.unwrap();
        let address = format!("http://{}", gateway.grpc_addr());
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        let gateway = Mutex::new(Some(gateway));
        Shelf { gateway, channel, proxy, jetstream, _nats: nats, _folder: folder }
    }

    /// A gateway with a stream, whose user has the permissions that `gateway routes permissions` prints, and no others.
    pub async fn permitted() -> Shelf {
        let printed = gateway::permissions::permissions(&contract());
        let users = "authorization { users: [
            {user: gateway, password: \"gateway's secret\", permissions: $gateway_may}
            {user: shelf, password: s, permissions: $shelf_v1_Shelf_may}
            {user: witness, password: w}
        ] }\nno_auth_user: witness";
        let config = Some(format!("{printed}\n{users}"));
        let options = local_nats::Options { config, ..Default::default() };
        let shelf = Shelf::with(options, |config| {
            let url = config.nats.url.clone();
            config.nats = roles::options(&url, "gateway");
        });
        let shelf = shelf.await;
        shelf.stream(stream::Config::default()).await;
        shelf
    }

    /// The same, with a stream for it.
    pub async fn open() -> Shelf {
        let shelf = Shelf::bare().await;
        shelf.stream(stream::Config::default()).await;
        shelf
    }

    /// Drains the gateway.
    pub async fn drain(&self) {
        let gateway = self.gateway.lock().unwrap().take().unwrap();
        gateway.drain().await;
    }

    pub async fn stream(&self, config: stream::Config) {
        let (name, subjects) = ("SHELF".to_owned(), vec!["shelf.>".to_owned()]);
        self.jetstream.create_stream(stream::Config { name, subjects, ..config }).await.unwrap();
    }

    pub async fn call(&self, path: &str, book: Book) -> Result<Stored, Status> {
        let message = book.encode_to_vec().into();
        let reply = codec::ask(&self.channel, path, message, &[("grpc-timeout", "20S")]).await?;
        Ok(Stored::decode(reply).unwrap())
    }

    /// Sends a stream of volumes.
    pub async fn load(
        &self,
        path: &str,
        volumes: impl Stream<Item = Book> + Send + 'static,
        limit: &str,
    ) -> Result<Loaded, Status> {
        self.load_with(path, volumes, &[("grpc-timeout", limit)]).await
    }

    /// The same, with this metadata.
    pub async fn load_with(
        &self,
        path: &str,
        volumes: impl Stream<Item = Book> + Send + 'static,
        metadata: &[(&'static str, &str)],
    ) -> Result<Loaded, Status> {
        let messages = futures_util::StreamExt::map(volumes, |book| Bytes::from(book.encode_to_vec()));
        let reply = codec::send(&self.channel, path, messages, metadata).await?;
        Ok(Loaded::decode(reply).unwrap())
    }

    /// The titles that the stream holds, in its order.
    pub async fn titles(&self) -> Vec<String> {
        let stream = self.jetstream.get_stream("SHELF").await.unwrap();
        let state = stream.get_info().await.unwrap().state;
        let mut titles = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let book: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
            titles.push(book["title"].as_str().unwrap_or_default().to_owned());
        }
        titles
    }

    /// Waits until the stream holds so many messages, which the gateway does not learn, and breaks its connections.
    pub async fn cut_after(&self, messages: usize) {
        self.proxy.muted().await;
        until("it is stored", async || self.titles().await.len() >= messages).await;
        self.proxy.reset();
    }
}

/// The contract.
pub fn contract() -> Arc<Catalog> {
    let (_folder, file) = folder();
    let sources = Options { proto: vec![file], ..Options::default() };
    contracts::read(&sources, false).unwrap()
}

/// A folder with the contract's file.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shelf.proto");
    std::fs::write(&file, SHELF).unwrap();
    (folder, file)
}

fn serving(file: &Path, url: &str) -> Serve {
    Serve {
        sources: Options { proto: vec![file.into()], ..Options::default() },
        threads: 1,
        ..Serve::at(url)
    }
}

pub fn book(id: &str, title: &str) -> Book {
    Book { shelf: "top".into(), book_id: id.into(), title: title.into(), revision: None }
}

pub fn revised(revision: Option<u64>, title: &str) -> Book {
    Book { revision, ..book("", title) }
}

pub fn stored(sequence: u64, duplicate: bool) -> Stored {
    Stored { stream: "SHELF".to_owned(), sequence, duplicate }
}
