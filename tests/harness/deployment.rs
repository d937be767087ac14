//! A cluster of nats-servers as deploy/nats ships it: cluster-tls.conf, tls.conf and roles.conf, with certificates made
//! by certificates.sh. Servers are added, lost and removed while a gateway and a worker keep running.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::inventory::v1::{AdjustStockRequest, Adjustment, GetStockRequest};
use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{CreateOrderRequest, GetOrderRequest, Order};
use gateway::Gateway;
use gateway::config::Provision;
use local_nats::{Options, Ready, Server, spare_port};
use nats::Connection;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::harness::cluster::until;
use crate::harness::http::get;
use crate::harness::roles;
use crate::harness::system::new_order;
use crate::harness::worker::WorkerThread;

/// One cluster at a time, as elections fail on a machine that is too busy.
static TURN: Mutex<()> = Mutex::const_new(());
const CONFIG: &str = include_str!("../../deploy/nats/cluster-tls.conf");
const TLS: &str = include_str!("../../deploy/nats/tls.conf");

/// The servers, a gateway and a worker.
pub struct Deployment {
    pub servers: Vec<Option<Server>>,
    pub folder: TempDir,
    pub gateway: Gateway,
    _worker: WorkerThread,
    routes: Vec<u16>,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

/// Places one order after the other until told to stop. Returns those that were acknowledged.
pub struct OrderLoop {
    stop: CancellationToken,
    placed: JoinHandle<Vec<Order>>,
}

/// Runs the shipped script for servers with these names, which are also names of this machine.
pub fn certificates(folder: &Path, names: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nats/certificates.sh");
    let names = names.iter().map(|name| format!("{name},localhost,127.0.0.1"));
    let made = Command::new(script).arg(folder).args(names).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// Replaces a text that has to occur.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in\n{text}");
    text.replace(from, to)
}

/// Options of a server: its name, its folder, its certificate's folder, and the route ports of all servers.
pub fn options(name: &str, folder: &Path, certificate: &Path, port: u16, routes: &[u16]) -> Options {
    let data = folder.join(name);
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("roles.conf"), roles::config()).unwrap();
    std::fs::write(data.join("tls.conf"), with(TLS, "/etc/nats/tls", certificate.to_str().unwrap())).unwrap();
    // Ports and folders are local; everything else is as shipped. Two ports and the store are set when it is started.
    let mut text = with(CONFIG, "listen: 0.0.0.0:4222\n", "");
    text = with(&text, "http: 0.0.0.0:8222\n", "");
    text = with(&text, "0.0.0.0:6222", &format!("127.0.0.1:{port}"));
    text = with(&text, "store_dir: /data\n", "");
    text = with(&text, "$NATS_NAME", name);
    let routes: Vec<_> = routes.iter().map(|port| format!("nats://localhost:{port}")).collect();
    let shipped = "nats://nats-0:6222, nats://nats-1:6222, nats://nats-2:6222";
    text = with(&text, shipped, &routes.join(", "));
    Options {
        config: Some(text),
        data_dir: Some(data),
        ready: Ready::Listening,
        start_limit: Some(Duration::from_secs(30)),
        ..Options::default()
    }
}

pub async fn start(options: Options) -> Server {
    tokio::task::spawn_blocking(|| Server::with(options)).await.unwrap().expect("a nats-server")
}

impl Deployment {
    /// Three servers, streams with three replicas, stock, a worker and a gateway, each with the user of its role.
    pub async fn start() -> Deployment {
        let turn = TURN.lock().await;
        let folder = TempDir::new().unwrap();
        certificates(&folder.path().join("certificates"), &["nats-0", "nats-1", "nats-2"]);
        let routes: Vec<u16> = (0..3).map(|_| spare_port().unwrap()).collect();
        let mut servers = Vec::new();
        for (number, port) in routes.iter().enumerate() {
            let name = format!("nats-{number}");
            let certificate = folder.path().join("certificates").join(&name);
            servers.push(Some(start(options(&name, folder.path(), &certificate, *port, &routes)).await));
        }
        until("they are one cluster", async || servers.iter().flatten().all(Server::is_healthy)).await;
        let role = |name: &str| role(&servers, folder.path(), name);
        let connection = Connection::connect(&role("provisioner"), "gateway provision").await.unwrap();
        until("the streams are there", async || order_streams::open(&connection, 3, true).await.is_ok())
            .await;
        let mut worker = inventory_worker::config::Serve::at("");
        worker.nats.connection = role("worker");
        (worker.nats.replicas, worker.nats.provision) = (3, inventory_worker::config::Provision::Never);
        let worker = WorkerThread::start(worker).await;
        let config = gateway::config::Serve {
            nats: role("gateway"),
            threads: 1,
            replicas: 3,
            provision: Provision::Never,
            ..gateway::config::Serve::at("")
        };
        let gateway = Gateway::start(config).await.expect("a gateway");
        let deployment = Deployment { servers, folder, gateway, _worker: worker, routes, _turn: turn };
        until("all is up", async || {
            ["", "orders.v1.OrderService"].iter().all(|name| deployment.gateway.up(name) == Some(true))
        })
        .await;
        let adjustments = vec![Adjustment { product_id: "lamp".to_owned(), delta: 1_000_000 }];
        let request =
            AdjustStockRequest { request_id: "first".to_owned(), adjustments, reason: String::new() };
        until("there is stock", async || deployment.inventory().adjust_stock(request.clone()).await.is_ok())
            .await;
        deployment
    }

    /// Connection options of a role, with the names of the certificates.
    pub fn role(&self, name: &str) -> nats::Options {
        role(&self.servers, self.folder.path(), name)
    }

    pub async fn connect(&self, name: &str) -> Connection {
        Connection::connect(&self.role(name), name).await.unwrap()
    }

    pub fn server(&self, number: usize) -> &Server {
        self.servers[number].as_ref().unwrap()
    }

    /// The folder of a server's certificate.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.folder.path().join("certificates").join(name)
    }

    /// Starts one more server, with a certificate of its own.
    pub async fn add(&mut self) {
        let name = format!("nats-{}", self.servers.len());
        certificates(&self.folder.path().join("certificates"), &[&name]);
        let port = spare_port().unwrap();
        self.routes.push(port);
        let options = options(&name, self.folder.path(), &self.certificate(&name), port, &self.routes);
        self.servers.push(Some(start(options).await));
    }

    /// Starts a server with the name of a lost one and an empty disk.
    pub async fn replace(&mut self, number: usize) {
        drop(self.servers[number].take());
        let name = format!("nats-{number}");
        std::fs::remove_dir_all(self.folder.path().join(&name)).unwrap();
        let options =
            options(&name, self.folder.path(), &self.certificate(&name), self.routes[number], &self.routes);
        self.servers[number] = Some(start(options).await);
    }

    /// Stops a server gracefully.
    pub fn stop(&mut self, number: usize) {
        if let Some(mut server) = self.servers[number].take() {
            server.stop();
        }
    }

    /// The servers' route ports.
    pub fn routes(&self) -> &[u16] {
        &self.routes
    }

    /// An HTTP GET to a server's monitoring port.
    pub async fn monitor(&self, number: usize, path: &str) -> Value {
        let address = ([127, 0, 0, 1], self.server(number).monitor_port()).into();
        serde_json::from_str(&get(address, path).await).unwrap_or_default()
    }

    fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.gateway.grpc_addr())).unwrap().connect_lazy()
    }

    pub fn orders(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel())
    }

    pub fn inventory(&self) -> InventoryServiceClient<Channel> {
        InventoryServiceClient::new(self.channel())
    }

    /// Starts placing orders, each retried until it is acknowledged.
    pub fn place_orders(&self) -> OrderLoop {
        let stop = CancellationToken::new();
        let (client, until) = (self.orders(), stop.clone());
        let placed = tokio::spawn(async move {
            let mut placed = Vec::new();
            while !until.is_cancelled() {
                let request = new_order("lamp", 1).id(&format!("order-{}", placed.len())).request;
                placed.push(buy(client.clone(), request).await);
            }
            placed
        });
        OrderLoop { stop, placed }
    }

    /// Asserts that every acknowledged order exists, and that they hold exactly what is reserved.
    pub async fn audit(&self, orders: OrderLoop) {
        orders.stop.cancel();
        let placed = orders.placed.await.unwrap();
        assert!(placed.len() > 20, "only {} orders", placed.len());
        for order in &placed {
            let request = GetOrderRequest { order_id: order.order_id.clone() };
            let found = self.orders().get_order(request).await.unwrap().into_inner().order;
            assert_eq!(found.unwrap().order_id, order.order_id);
        }
        let request = GetStockRequest { product_id: "lamp".to_owned() };
        let stock = self.inventory().get_stock(request).await.unwrap().into_inner().stock.unwrap();
        assert_eq!(stock.reserved as usize, placed.len());
    }
}

fn role(servers: &[Option<Server>], folder: &Path, name: &str) -> nats::Options {
    let urls: Vec<_> =
        servers.iter().flatten().map(|server| format!("tls://localhost:{}", server.port())).collect();
    let ca = Some(folder.join("certificates/ca.crt"));
    nats::Options { ca, ..roles::options(&urls.join(","), name) }
}

/// The reply to a request, or null.
pub async fn ask(nats: &Connection, subject: &str, body: &Value) -> Value {
    let limit = Instant::now() + Duration::from_secs(5);
    let reply = nats.request(subject, Default::default(), body.to_string().into(), limit).await;
    reply.ok().and_then(|reply| serde_json::from_slice(&reply.payload).ok()).unwrap_or_default()
}

async fn buy(client: OrderServiceClient<Channel>, request: CreateOrderRequest) -> Order {
    let limit = Instant::now() + Duration::from_secs(120);
    loop {
        let mut call = tonic::Request::new(request.clone());
        call.set_timeout(Duration::from_secs(6));
        match client.clone().create_order(call).await {
            Ok(reply) => return reply.into_inner().order.unwrap(),
            Err(status) => assert!(Instant::now() < limit, "never acknowledged: {status}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}
