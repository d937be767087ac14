//! `loadtest replay` against a gateway with TLS and API keys: it connects, or says what to change; and it never hangs.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gateway::Gateway;
use local_nats::Server;
use rustix::process::{Pid, Signal, kill_process};
use server::auth::apikey;
use server::config::tls::Tls;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::harness::command::{Ended, program, run};
use crate::harness::pki::Authority;

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");
const SCOPES: [&str; 4] = ["orders.create", "orders.read", "inventory.read", "inventory.adjust"];
/// Longer than any test may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(50);

/// A gateway with TLS and one key, a worker, and files for a client.
struct Setup {
    gateway: Gateway,
    folder: TempDir,
    key: String,
    runtime: Runtime,
    nats: Server,
}

impl Setup {
    fn open() -> Setup {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (nats, folder, authority) =
            (Server::start().unwrap(), tempfile::tempdir().unwrap(), Authority::new());
        let (cert, key) = authority.server().write(folder.path());
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).unwrap();
        std::fs::write(folder.path().join("other.crt"), Authority::new().pem()).unwrap();
        let new = apikey::new(&orders::served::contract(), "till", &SCOPES.map(str::to_owned), None).unwrap();
        std::fs::write(folder.path().join("keys"), new.line).unwrap();
        let mut config = gateway::config::Serve { threads: 1, ..gateway::config::Serve::at(nats.url()) };
        config.tls = Tls { tls_cert: Some(cert), tls_key: Some(key), ..Tls::default() };
        config.access.api_keys = Some(folder.path().join("keys"));
        let worker = inventory_worker::config::Serve::at(&nats.url());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(inventory_worker::run(worker, std::future::pending()))
        });
        let gateway = runtime.block_on(Gateway::start(config)).unwrap();
        let limit = Instant::now() + PATIENCE;
        while gateway.up("orders.v1.OrderService") != Some(true)
            || gateway.up("inventory.v1.InventoryService") != Some(true)
        {
            assert!(Instant::now() < limit, "the gateway does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        let setup = Setup { gateway, folder, key: new.key.to_string(), runtime, nats };
        setup.file("key", &setup.key);
        setup.file("wrong", &setup.key.replace("till", "tell"));
        setup.file("stock.csv", "product,on_hand\nlamp,9\n");
        setup.file("orders.csv", "order,customer,product,quantity,time\n1,ann,lamp,2,2026-01-01T00:00:00Z\n");
        setup
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A replay with these additional arguments; files are given by name.
    fn replay(&self, arguments: &[&str]) -> Command {
        let mut command = program(LOADTEST, &["replay", "--orders=orders.csv", "--stock=stock.csv"]);
        if !arguments.iter().any(|argument| argument.starts_with("--connect-timeout")) {
            command.arg("--connect-timeout=3");
        }
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    /// Waits until ORDERS has this many orders.
    fn until_orders(&self, count: u64) {
        self.runtime.block_on(async {
            let link =
                nats::Connection::connect(&nats::Options::at(self.nats.url()), "a test").await.unwrap();
            let (store, limit) =
                (nats::Store::new(link, order_streams::ORDERS), tokio::time::Instant::now() + PATIENCE);
            while store.range(limit).await.unwrap().last < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }

    fn url(&self, scheme: &str, host: &str) -> String {
        format!("--addr={scheme}{host}:{}", self.gateway.grpc_addr().port())
    }
}

fn ended(command: &mut Command) -> (Ended, Duration) {
    let begun = Instant::now();
    (run(command), begun.elapsed())
}

#[test]
fn orders_are_replayed_and_audited_over_tls_with_a_key() {
    let setup = Setup::open();
    let url = setup.url("https://", "localhost");
    let (placed, _) = ended(&mut setup.replay(&[&url, "--cacert=ca.crt", "--api-key-file=key"]));
    assert_eq!(placed.code, Some(0), "{placed:?}");
    // With another address, and the key in an environment variable.
    let url = setup.url("", "127.0.0.1");
    let mut again = setup.replay(&[&url, "--cacert=ca.crt", "--servername=localhost"]);
    let (again, _) = ended(again.env("GW_CLIENT_API_KEY", &setup.key));
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(!format!("{placed:?}{again:?}").contains(&setup.key), "a key was shown");
}

#[test]
fn what_keeps_a_client_out_is_said_with_what_to_change() {
    let setup = Setup::open();
    let (tls, plain, bare) = (
        setup.url("https://", "localhost"),
        setup.url("http://", "localhost"),
        setup.url("https://", "127.0.0.1"),
    );
    let http = format!("--addr=https://{}", setup.gateway.http_addr());
    let nobody = format!("--addr={}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    for (arguments, words) in [
        (vec![&*tls, "--api-key-file=key"], vec!["--cacert"]),
        (
            vec![&tls, "--cacert=other.crt", "--api-key-file=key"],
            vec!["invalid peer certificate", "--cacert"],
        ),
        (vec![&bare, "--cacert=ca.crt", "--api-key-file=key"], vec!["--authority"]),
        (vec![&plain, "--api-key-file=key"], vec!["https://"]),
        (vec![&tls, "--cacert=ca.crt"], vec!["Unauthenticated", "--api-key-file"]),
        (vec![&tls, "--cacert=ca.crt", "--api-key-file=wrong"], vec!["does not know the key"]),
        (vec![&http, "--cacert=ca.crt", "--authority=localhost"], vec!["there is no TLS at that port"]),
        (vec![&nobody], vec!["nothing listens there"]),
        (vec![&tls, "--cacert=stock.csv"], vec!["--cacert stock.csv", "no PEM certificate"]),
        (vec![&tls, "--cacert=missing"], vec!["--cacert missing", "cannot be read"]),
    ] {
        let (ended, took) = ended(&mut setup.replay(&arguments));
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        assert!(took < PATIENCE, "{arguments:?} took {took:?}");
        let text = ended.err.to_lowercase();
        assert!(words.iter().all(|word| text.contains(&word.to_lowercase())), "{arguments:?}: {}", ended.err);
    }
}

#[test]
fn a_port_that_says_nothing_ends_a_replay() {
    let setup = Setup::open();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for scheme in ["http", "https"] {
        let url = format!("--addr={scheme}://{}", silent.local_addr().unwrap());
        let (ended, took) = ended(&mut setup.replay(&[&url]));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(took < PATIENCE, "{took:?}: {ended:?}");
        // The TLS handshake, the connection and the call have limits; the text must not depend on the one that ends first.
        assert!(ended.err.to_lowercase().contains("no answer"), "{ended:?}");
    }
}

#[test]
fn a_replay_ends_within_the_time_that_it_is_given() {
    let setup = Setup::open();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--addr={}", silent.local_addr().unwrap());
    let (ended, took) = ended(&mut setup.replay(&[&url, "--within=1", "--connect-timeout=3600"]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(took < PATIENCE && ended.err.contains("not done within 1 s"), "{took:?}: {ended:?}");
}

/// A gateway without TLS in a separate process. Killed with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_gateway_that_is_stopped_in_the_middle_ends_a_replay() {
    let setup = Setup::open();
    let lines: String = (0..20_000).map(|n| format!("{n},ann,lamp,1,2026-01-01T00:00:00Z\n")).collect();
    setup.file("orders.csv", &format!("order,customer,product,quantity,time\n{lines}"));
    let grpc = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(LOADTEST);
    command.args([
        "gateway",
        "--http-addr=127.0.0.1:0",
        "--threads=1",
        "--nats-url",
        &setup.nats.url(),
        "--grpc-addr",
    ]);
    let gateway = Process(command.arg(grpc.to_string()).stderr(Stdio::null()).spawn().unwrap());
    let mut replay = setup.replay(&[
        &format!("--addr={grpc}"),
        "--budget=5",
        "--deadline=2",
        "--concurrency=4",
        "--connect-timeout=30",
    ]);
    let replay = std::thread::spawn(move || ended(&mut replay));
    setup.until_orders(1);
    kill_process(Pid::from_child(&gateway.0), Signal::STOP).unwrap();
    let (ended, took) = replay.join().unwrap();
    kill_process(Pid::from_child(&gateway.0), Signal::CONT).unwrap();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(took < PATIENCE, "{took:?}: {ended:?}");
}
