//! A nats-server with streams, a worker, and orders without reservations, on which commands have work to do.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use contract::header;
use contract::inventory::v1::Item;
use contract::orders::v1::{Order, OrderStatus};
use local_nats::Server;
use nats::{Connection, Expect, Store};
use order_streams::DeadLetters;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::GATEWAY;
use crate::harness::command::{program, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running system, which stops on drop.
pub struct System {
    pub nats: Server,
    pub folder: TempDir,
    runtime: Runtime,
    stop: CancellationToken,
}

impl Drop for System {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl System {
    /// A system with empty streams.
    pub fn empty() -> System {
        let system = System::bare();
        let made = run(&mut system.gateway(&["provision"]));
        assert_eq!(made.code, Some(0), "{}", made.err);
        system
    }

    /// A nats-server only.
    pub fn bare() -> System {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        System {
            nats: Server::start().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            runtime: runtime.unwrap(),
            stop: CancellationToken::new(),
        }
    }

    /// A worker, and orders without reservations: each is a dead letter, and a difference.
    pub fn with_orders(count: usize) -> System {
        let system = System::empty();
        let mut config = inventory_worker::config::Serve::at(&system.nats.url());
        config.max_deliver = 1;
        let stock = system.file("stock.csv", "product,on_hand\nlamp,100\n");
        system.runtime.block_on(inventory_worker::file::import(&stock, false, false, &config.nats)).unwrap();
        let stop = system.stop.clone().cancelled_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(inventory_worker::run(config, stop)).unwrap();
        });
        (0..count).for_each(|_| system.forge());
        system.until("every order is a dead letter", || system.letters() == count);
        system
    }

    /// The program, for this nats-server.
    pub fn gateway(&self, arguments: &[&str]) -> Command {
        let mut command = program(GATEWAY, arguments);
        command.env("NATS_URL", self.nats.url());
        command
    }

    /// Blocks on async work.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The number of dead letters.
    pub fn letters(&self) -> usize {
        let link = self.link();
        let counted = self.runtime.block_on(async { DeadLetters::new(&link).by_event().await });
        counted.unwrap().len()
    }

    /// The last sequence of a stream; `None` where there is no such stream.
    pub fn last(&self, stream: &'static str) -> Option<u64> {
        let store = Store::new(self.link(), stream);
        let limit = tokio::time::Instant::now() + PATIENCE;
        self.runtime.block_on(store.range(limit)).ok().map(|range| range.last)
    }

    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let limit = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < limit, "waited too long until {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn link(&self) -> Connection {
        let options = nats::Options::at(self.nats.url());
        self.runtime.block_on(Connection::connect(&options, "a test")).unwrap()
    }

    /// Appends an order as a gateway does, but without a reservation.
    fn forge(&self) {
        let id = Uuid::new_v4();
        let order = Order {
            order_id: id.to_string(),
            customer_id: "ann".to_owned(),
            items: vec![Item { product_id: "lamp".to_owned(), quantity: 2 }],
            status: OrderStatus::Pending.into(),
            create_time: Some(pbjson_types::Timestamp { seconds: 1, nanos: 0 }),
            update_time: Some(pbjson_types::Timestamp { seconds: 1, nanos: 0 }),
            ..Order::default()
        };
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(header::ORDER_CUSTOMER, "ann");
        headers.insert(header::ORDER_STATUS, "PENDING");
        let (subject, payload) =
            (format!("orders.event.order_created.{id}"), serde_json::to_vec(&order).unwrap());
        let store = Store::new(self.link(), order_streams::ORDERS);
        let limit = tokio::time::Instant::now() + PATIENCE;
        self.runtime.block_on(store.append(&subject, headers, payload.into(), Expect::Any, limit)).unwrap();
    }
}

/// The permissions of a file or folder.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).unwrap().mode() & 0o777
}
