//! `gateway doctor` on a real nats-server: each fault is planted, and found with its place and its cure.

use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::service::ServiceExt as _;
use async_nats::{Client, jetstream};
use catalog_sources::Options;
use futures_util::StreamExt as _;
use gateway::doctor::{Diagnosis, Doctor, Severity, diagnose};
use nats::WallClock;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Duration;

use crate::harness::client::settled;
use crate::harness::roles;

const ASK: &str = r#"rpc Ask(Note) returns (Note) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (natsgateway.v1.route) = {subject: "clinic.ask" queue_group: "clinic"};
}"#;
const STORE: &str = r#"rpc Store(Note) returns (Stored) {
  option (natsgateway.v1.route) = {
    subject: "clinic.stored.{id}" kind: KIND_EMIT_DURABLE retries: 2 timeout: {seconds: 5}
    durable: {stream: "CLINIC" message_id: "id"}
  };
}"#;
const FOLLOW: &str = r#"rpc Follow(Note) returns (stream Note) {
  option (natsgateway.v1.route) = {
    subject: "clinic.read" kind: KIND_SUBSCRIBE subscription: {stream: "CLINIC"}
  };
}"#;

/// A nats-server, the configuration of a doctor for it, and a client to plant faults with.
struct Clinic {
    server: local_nats::Server,
    client: Client,
    doctor: Doctor,
    _folder: TempDir,
}

/// Contracts with these rpcs, in a folder that has to stay.
fn contracts(rpcs: &str) -> (TempDir, Options) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clinic.proto");
    let proto = format!(
        "syntax = \"proto3\";\npackage clinic.v1;\nimport \"natsgateway/v1/route.proto\";\n\
         service Clinic {{\n{rpcs}\n}}\nmessage Note {{ string id = 1; }}\n\
         message Stored {{ string stream = 1; uint64 sequence = 2; }}\n"
    );
    std::fs::write(&file, proto).unwrap();
    (folder, Options { proto: vec![file], ..Options::default() })
}

impl Clinic {
    async fn open(rpcs: &str) -> Clinic {
        Clinic::with(rpcs, "").await
    }

    /// The same, with these lines in the server's configuration.
    async fn with(rpcs: &str, lines: &str) -> Clinic {
        let config = Some(lines.to_owned());
        let options = local_nats::Options { config, ..local_nats::Options::default() };
        let server = tokio::task::spawn_blocking(|| local_nats::Server::with(options)).await.unwrap().unwrap();
        let (folder, sources) = contracts(rpcs);
        let mut doctor = Doctor::at(server.url(), sources);
        let client = if lines.contains("users") {
            doctor.nats = roles::by(doctor.nats, "gateway", "secret");
            let options = async_nats::ConnectOptions::with_user_and_password("all".into(), "secret".into());
            options.connect(server.url()).await.unwrap()
        } else {
            async_nats::connect(server.url()).await.unwrap()
        };
        Clinic { server, client, doctor, _folder: folder }
    }

    /// With the servers' monitoring.
    fn monitored(mut self) -> Clinic {
        self.doctor.nats.nats_monitor_url = Some(self.server.monitor_url());
        self
    }

    /// Starts an instance of a micro service.
    async fn instance(&self, version: &str, group: &str) -> async_nats::service::Service {
        let service = self.client.service_builder().start("clinic", version).await.unwrap();
        let endpoint = service.endpoint_builder().queue_group(group).add("clinic.ask").await.unwrap();
        settled(&self.client).await;
        tokio::spawn(endpoint.for_each(|_| async {}));
        service
    }

    async fn stream(&self, config: Config) {
        jetstream::new(self.client.clone()).create_stream(config).await.unwrap();
    }

    async fn look(&self) -> Diagnosis {
        diagnose(self.doctor.clone()).await.unwrap()
    }
}

/// A stream that the routes above need.
fn clinic() -> Config {
    let subjects = vec!["clinic.stored.*".to_owned(), "clinic.read".to_owned()];
    Config { name: "CLINIC".to_owned(), subjects, ..Config::default() }
}

/// The only finding, as a line.
#[track_caller]
fn only(found: &Diagnosis) -> String {
    assert_eq!(found.findings.len(), 1, "{:#?}", found.lines());
    found.lines().remove(0)
}

/// Asserts that it is the only one, and that it has all these words.
#[track_caller]
fn assert_only(found: &Diagnosis, words: &[&str]) {
    let line = only(found);
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
}

/// The places of what was not looked at.
fn unseen(found: &Diagnosis) -> Vec<String> {
    found.unseen.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_system_without_a_fault_is_told_so_and_no_message_goes_to_a_route() {
    let clinic_ = Clinic::open(&[ASK, STORE, FOLLOW].join("\n")).await;
    clinic_.stream(clinic()).await;
    let _instances = (clinic_.instance("1.0.0", "clinic").await, clinic_.instance("1.0.0", "clinic").await);
    let mut heard = clinic_.client.subscribe(">").await.unwrap();
    settled(&clinic_.client).await;
    let found = clinic_.look().await;
    assert_eq!(found.lines(), ["nothing found: 3 routes, 1 stream looked at"]);
    assert_eq!(found, clinic_.look().await);
    settled(&clinic_.client).await;
    let mut subjects = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(50), heard.next()).await {
        subjects.push(message.subject.to_string());
    }
    assert!(subjects.contains(&"$SRV.INFO".to_owned()), "{subjects:?}");
    assert!(!subjects.iter().any(|subject| subject.starts_with("clinic")), "{subjects:?}");
    assert!(!subjects.iter().any(|subject| subject.contains("CREATE") || subject.contains("UPDATE")));
}

#[tokio::test]
async fn a_route_without_a_responder_is_an_error_where_subscriptions_are_known_and_else_not_known() {
    let clinic = Clinic::open(ASK).await;
    let found = clinic.look().await;
    let [why] = &unseen(&found)[..] else { panic!("{found:?}") };
    assert!(found.findings.is_empty() && why.contains("clinic.v1.Clinic/Ask"), "{found:?}");
    assert!(why.starts_with("not looked at: responders") && why.contains("GW_NATS_MONITOR_URL"), "{why}");
    let clinic = clinic.monitored();
    assert_only(&clinic.look().await, &["error: responders: clinic.v1.Clinic/Ask, subject clinic.ask"]);
    let _requests = clinic.client.queue_subscribe("clinic.ask", "clinic".to_owned()).await.unwrap();
    settled(&clinic.client).await;
    assert_eq!(clinic.look().await.lines(), ["nothing found: 1 route, 0 streams looked at"]);
}

#[tokio::test]
async fn instances_that_do_not_share_the_queue_group_of_the_route_are_found() {
    let clinic = Clinic::open(ASK).await;
    let one = clinic.instance("1.0.0", "other").await;
    assert_only(&clinic.look().await, &["warning: queue-group", "is clinic, that of clinic 1.0.0", "is other"]);
    let _two = clinic.instance("1.0.0", "clinic").await;
    assert_only(&clinic.look().await, &["error: queue-group", "2 receivers", "in clinic: ", "in other: "]);
    one.stop().await.unwrap();
}

#[tokio::test]
async fn two_subscribers_without_a_queue_group_are_found_by_the_monitoring() {
    let clinic = Clinic::open(ASK).await.monitored();
    let _both = (
        clinic.client.subscribe("clinic.ask").await.unwrap(),
        clinic.client.subscribe("clinic.*").await.unwrap(),
    );
    settled(&clinic.client).await;
    assert_only(&clinic.look().await, &["error: queue-group", "2 receivers", "without a queue group: client "]);
}

#[tokio::test]
async fn instances_of_different_versions_are_found() {
    let clinic = Clinic::open(ASK).await;
    let _both = (clinic.instance("1.0.0", "clinic").await, clinic.instance("1.1.0", "clinic").await);
    assert_only(&clinic.look().await, &["warning: versions: instance clinic: ", "1.0.0 (", "1.1.0 ("]);
}

#[tokio::test]
async fn a_stream_that_captures_requests_is_found() {
    let clinic = Clinic::open(ASK).await;
    let _instance = clinic.instance("1.0.0", "clinic").await;
    let subjects = vec!["clinic.>".to_owned()];
    clinic.stream(Config { name: "GREEDY".to_owned(), subjects, ..Config::default() }).await;
    let words = ["error: capture: clinic.v1.Clinic/Ask, subject clinic.ask, stream GREEDY: ", "nats stream edit"];
    assert_only(&clinic.look().await, &words);
}

#[tokio::test]
async fn a_missing_stream_is_found_for_each_route_that_needs_it() {
    let clinic = Clinic::open(&[STORE, FOLLOW].join("\n")).await;
    let found = clinic.look().await;
    let lines = found.lines();
    assert_eq!(lines[2], "2 findings: 2 errors, 0 warnings");
    for (line, rpc) in lines.iter().zip(["Follow", "Store"]) {
        assert!(line.starts_with(&format!("error: stream: clinic.v1.Clinic/{rpc}, subject clinic.")), "{line}");
        assert!(line.contains("stream CLINIC: the stream does not exist") && line.contains("nats stream add"));
    }
    let any = Clinic::open(&STORE.replace("stream: \"CLINIC\" ", "")).await;
    assert_only(&any.look().await, &["error: stream: ", "no stream captures the subject", "clinic.stored.*"]);
}

#[tokio::test]
async fn a_stream_without_the_subject_is_found_and_so_is_the_one_that_has_it() {
    let open = Clinic::open(STORE).await;
    open.stream(Config { subjects: vec!["else".to_owned()], ..clinic() }).await;
    assert_only(&open.look().await, &["error: stream: ", "does not capture clinic.stored.*", "subjects are else"]);
    let subjects = vec!["clinic.stored.>".to_owned()];
    open.stream(Config { name: "OTHER".to_owned(), subjects, ..Config::default() }).await;
    assert_only(&open.look().await, &["error: stream: ", "stream CLINIC: ", "but another one does: OTHER"]);
    let part = Clinic::open(STORE).await;
    part.stream(Config { subjects: vec!["clinic.stored.a".to_owned()], ..clinic() }).await;
    assert_only(&part.look().await, &["warning: stream: ", "only a part of clinic.stored.*"]);
}

#[tokio::test]
async fn a_stream_in_memory_loses_what_a_route_says_is_stored() {
    let open = Clinic::open(&[STORE, FOLLOW].join("\n")).await;
    open.stream(Config { storage: StorageType::Memory, ..clinic() }).await;
    let lines = open.look().await.lines();
    assert!(lines[0].starts_with("error: durability: clinic.v1.Clinic/Store"), "{lines:?}");
    assert!(lines[1].starts_with("warning: durability: clinic.v1.Clinic/Follow"), "{lines:?}");
}

#[tokio::test]
async fn a_stream_with_one_replica_in_a_cluster_is_found() {
    let cluster = tokio::task::spawn_blocking(|| local_nats::Cluster::start(3)).await.unwrap().unwrap();
    let client = async_nats::connect(cluster.nodes()[0].url()).await.unwrap();
    let (_folder, sources) = contracts(STORE);
    jetstream::new(client).create_stream(clinic()).await.unwrap();
    let found = diagnose(Doctor::at(cluster.urls(), sources)).await.unwrap();
    assert_only(&found, &["warning: durability: ", "stream CLINIC: ", "one replica", "--replicas 3"]);
}

#[tokio::test]
async fn a_duplicate_window_that_retries_outlast_is_found() {
    let open = Clinic::open(STORE).await;
    open.stream(Config { duplicate_window: Duration::from_secs(15), ..clinic() }).await;
    assert_only(&open.look().await, &["warning: duplicate-window: ", "for 15s", "--dupe-window 16s"]);
}

#[tokio::test]
async fn a_payload_limit_below_that_of_requests_is_found() {
    let clinic = Clinic::with(ASK, "max_payload: 65536").await;
    let _instance = clinic.instance("1.0.0", "clinic").await;
    assert_only(&clinic.look().await, &["warning: payload: ", "65536", "GW_MAX_REQUEST_BYTES=65536"]);
}

/// Two users: one who may do everything, and the gateway, with these permissions.
fn users(permissions: &str) -> String {
    format!(
        "accounts {{ A {{ jetstream: enabled, users: [ {{user: all, password: secret}}, \
         {{user: gateway, password: secret, permissions: {{ {permissions} }} }} ] }} }}"
    )
}

#[tokio::test]
async fn a_route_that_the_user_may_not_publish_to_is_found_without_publishing_there() {
    let may = r#"publish: {allow: ["$SRV.>", "$JS.API.>", "$SYS.REQ.USER.INFO", "clinic.other"]}"#;
    let clinic = Clinic::with(ASK, &users(may)).await;
    let _instance = clinic.instance("1.0.0", "clinic").await;
    let words = ["error: permissions: clinic.v1.Clinic/Ask, subject clinic.ask: ", "\"gateway\" may not publish to it"];
    assert_only(&clinic.look().await, &words);
    let log = std::fs::read_to_string(clinic.server.log()).unwrap();
    assert!(!log.contains("Violation"), "{log}");
    let operator = Doctor { as_operator: true, ..clinic.doctor.clone() };
    let found = diagnose(operator).await.unwrap();
    assert!(found.findings.is_empty() && unseen(&found)[0].contains("--as-operator"), "{found:?}");
}

#[tokio::test]
async fn a_user_without_an_inbox_is_told_so_and_nothing_passes_for_fine() {
    let clinic = Clinic::with(ASK, &users(r#"subscribe: {allow: "_INBOX_gateway.>"}"#)).await;
    let found = clinic.look().await;
    assert_only(&found, &["error: permissions: ", "subscribe to \"_INBOX.", "GW_NATS_INBOX_PREFIX"]);
    assert_eq!(unseen(&found), ["not looked at: all: no reply can be received"]);
}

#[tokio::test]
async fn what_the_user_may_not_ask_is_not_looked_at() {
    let clinic = Clinic::with(&[ASK, STORE].join("\n"), &users(r#"publish: {allow: "clinic.>"}"#)).await;
    let found = clinic.look().await;
    let checks: Vec<_> = found.unseen.iter().map(|unseen| unseen.check).collect();
    assert!(found.findings.is_empty(), "{found:?}");
    let wanted = ["capture", "clock", "jetstream", "permissions", "responders", "stream", "versions"];
    assert_eq!(checks, wanted, "{found:?}");
}

#[tokio::test]
async fn an_account_without_jetstream_is_found_where_a_route_needs_it() {
    for lines in ["jetstream: disabled", &users("publish: \">\"").replace("jetstream: enabled,", "")] {
        let open = Clinic::with(STORE, lines).await;
        assert_only(&open.look().await, &["error: jetstream: ", "not enabled", "jetstream: enabled"]);
    }
    let open = Clinic::with(ASK, "jetstream: disabled").await;
    let _instance = open.instance("1.0.0", "clinic").await;
    assert_eq!(open.look().await.lines(), ["nothing found: 1 route, 0 streams looked at"]);
}

/// A server that says that it is version 2.11.9: the URL.
async fn older(port: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut from, mut to) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
            let (mut reads, mut writes) = client.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut reads, &mut to).await });
            tokio::spawn(async move {
                let mut bytes = vec![0; 1 << 16];
                while let Ok(count @ 1..) = from.read(&mut bytes).await {
                    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                    let text = match text.split_once("\"version\":\"") {
                        Some((begin, rest)) if text.starts_with("INFO") => {
                            let rest = rest.split_once('"').unwrap().1;
                            format!("{begin}\"version\":\"2.11.9\"{rest}")
                        }
                        _ => text,
                    };
                    writes.write_all(text.as_bytes()).await.unwrap();
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_server_that_is_too_old_is_an_error_for_streams_and_a_warning_without() {
    let mut open = Clinic::open(STORE).await;
    open.stream(clinic()).await;
    open.doctor.nats.url = older(open.server.port()).await;
    assert_only(&open.look().await, &["error: version: nats-server 2.11.9 is too old"]);
    let mut open = Clinic::open(ASK).await;
    open.doctor.nats.url = older(open.server.port()).await;
    assert_only(&open.look().await, &["warning: version: nats-server 2.11.9 is too old"]);
}

#[tokio::test]
async fn a_clock_that_differs_from_the_servers_is_found() {
    let hour = Duration::from_secs(3_600);
    for (wall, side) in [(WallClock::ahead(hour), "ahead of"), (WallClock::behind(hour), "behind")] {
        let mut clinic = Clinic::open(ASK).await;
        clinic.doctor.nats.wall = wall;
        assert_only(&clinic.look().await, &["warning: clock: ", "3600.0s", side, "NTP"]);
    }
}

#[tokio::test]
async fn a_missing_stream_of_the_order_system_is_found() {
    let mut clinic = Clinic::open(ASK).await;
    clinic.doctor.sources = Options::default();
    let found = clinic.look().await;
    let missing = found.findings.iter().filter(|finding| finding.cure.contains("gateway provision"));
    assert_eq!(missing.count(), order_streams::ALL.len(), "{found:?}");
    // Its workers are known to announce themselves.
    assert!(found.findings.iter().any(|finding| finding.check == "responders"), "{found:?}");
    assert!(found.count(Severity::Error) == found.findings.len() && found.unseen.is_empty(), "{found:?}");
}
