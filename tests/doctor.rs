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
use tokio::time::{Duration, timeout};

use crate::harness::client::{next, settled};
use crate::harness::proxy::Proxy;
use crate::harness::roles;
use crate::harness::system::PATIENCE;

const ASK: &str = r#"rpc Ask(Note) returns (Note) {
  option idempotency_level = NO_SIDE_EFFECTS;
  option (natsgateway.v1.route) = {subject: "ward.ask" queue_group: "ward"};
}"#;
const STORE: &str = r#"rpc Store(Note) returns (Stored) {
  option (natsgateway.v1.route) = {
    subject: "ward.stored.{id}" kind: KIND_EMIT_DURABLE retries: 2 timeout: {seconds: 5}
    durable: {stream: "WARD" message_id: "id"}
  };
}"#;
const FOLLOW: &str = r#"rpc Follow(Note) returns (stream Note) {
  option (natsgateway.v1.route) = {
    subject: "ward.read" kind: KIND_SUBSCRIBE subscription: {stream: "WARD"}
  };
}"#;

/// A nats-server, the configuration of a doctor for it, and a client to plant faults with.
struct Ward {
    server: local_nats::Server,
    client: Client,
    doctor: Doctor,
    _folder: TempDir,
}

/// Contracts with these rpcs, in a folder that has to stay.
fn contracts(rpcs: &str) -> (TempDir, Options) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ward.proto");
    let proto = format!(
        "syntax = \"proto3\";\npackage ward.v1;\nimport \"natsgateway/v1/route.proto\";\n\
         service Ward {{\n{rpcs}\n}}\nmessage Note {{ string id = 1; }}\n\
         message Stored {{ string stream = 1; uint64 sequence = 2; }}\n"
    );
    std::fs::write(&file, proto).unwrap();
    (folder, Options { proto: vec![file], ..Options::default() })
}

impl Ward {
    async fn open(rpcs: &str) -> Ward {
        Ward::with(rpcs, "").await
    }

    /// The same, with these lines in the server's configuration.
    async fn with(rpcs: &str, lines: &str) -> Ward {
        let config = Some(lines.to_owned());
        let options = local_nats::Options { config, ..local_nats::Options::default() };
        let server =
            tokio::task::spawn_blocking(|| local_nats::Server::with(options)).await.unwrap().unwrap();
        let (folder, sources) = contracts(rpcs);
        let mut doctor = Doctor::at(server.url(), sources);
        let client = if lines.contains("users") {
            doctor.nats = roles::by(doctor.nats, "gateway", "secret");
            let options = async_nats::ConnectOptions::with_user_and_password("all".into(), "secret".into());
            options.connect(server.url()).await.unwrap()
        } else {
            async_nats::connect(server.url()).await.unwrap()
        };
        Ward { server, client, doctor, _folder: folder }
    }

    /// With the servers' monitoring.
    fn monitored(mut self) -> Ward {
        self.doctor.nats.nats_monitor_url = Some(self.server.monitor_url());
        self
    }

    /// Starts an instance of a micro service.
    async fn instance(&self, version: &str, group: &str) -> async_nats::service::Service {
        let service = self.client.service_builder().start("ward", version).await.unwrap();
        let endpoint = service.endpoint_builder().queue_group(group).add("ward.ask").await.unwrap();
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
fn ward() -> Config {
    let subjects = vec!["ward.stored.*".to_owned(), "ward.read".to_owned()];
    Config { name: "WARD".to_owned(), subjects, ..Config::default() }
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
    let open = Ward::open(&[ASK, STORE, FOLLOW].join("\n")).await;
    open.stream(ward()).await;
    let _instances = (open.instance("1.0.0", "ward").await, open.instance("1.0.0", "ward").await);
    let mut heard = open.client.subscribe(">").await.unwrap();
    settled(&open.client).await;
    let found = open.look().await;
    assert_eq!(found.lines(), ["nothing found: 3 routes, 1 stream looked at"]);
    assert_eq!(found, open.look().await);
    open.client.publish("end", "".into()).await.unwrap();
    let mut subjects = Vec::new();
    while subjects.last().is_none_or(|last| last != "end") {
        subjects.push(next(&mut heard).await.subject.to_string());
    }
    assert!(subjects.contains(&"$SRV.INFO".to_owned()), "{subjects:?}");
    assert!(!subjects.iter().any(|subject| subject.starts_with("ward")), "{subjects:?}");
    assert!(!subjects.iter().any(|subject| subject.contains("CREATE") || subject.contains("UPDATE")));
}

#[tokio::test]
async fn a_route_without_a_responder_is_an_error_where_subscriptions_are_known_and_else_not_known() {
    let ward = Ward::open(ASK).await;
    let found = ward.look().await;
    let [why] = &unseen(&found)[..] else { panic!("{found:?}") };
    assert!(found.findings.is_empty() && why.contains("ward.v1.Ward/Ask"), "{found:?}");
    assert!(why.starts_with("not looked at: responders") && why.contains("GW_NATS_MONITOR_URL"), "{why}");
    let ward = ward.monitored();
    assert_only(&ward.look().await, &["error: responders: ward.v1.Ward/Ask, subject ward.ask"]);
    let _requests = ward.client.queue_subscribe("ward.ask", "ward".to_owned()).await.unwrap();
    settled(&ward.client).await;
    assert_eq!(ward.look().await.lines(), ["nothing found: 1 route, 0 streams looked at"]);
}

#[tokio::test]
async fn instances_that_do_not_share_the_queue_group_of_the_route_are_found() {
    let ward = Ward::open(ASK).await;
    let one = ward.instance("1.0.0", "other").await;
    assert_only(&ward.look().await, &["warning: queue-group", "is ward, that of ward 1.0.0", "is other"]);
    let _two = ward.instance("1.0.0", "ward").await;
    assert_only(&ward.look().await, &["error: queue-group", "2 receivers", "in ward: ", "in other: "]);
    one.stop().await.unwrap();
}

#[tokio::test]
async fn two_subscribers_without_a_queue_group_are_found_by_the_monitoring() {
    let ward = Ward::open(ASK).await.monitored();
    let _both =
        (ward.client.subscribe("ward.ask").await.unwrap(), ward.client.subscribe("ward.*").await.unwrap());
    settled(&ward.client).await;
    assert_only(&ward.look().await, &["error: queue-group", "2 receivers", "without a queue group: client "]);
}

#[tokio::test]
async fn instances_of_different_versions_are_found() {
    let ward = Ward::open(ASK).await;
    let _both = (ward.instance("1.0.0", "ward").await, ward.instance("1.1.0", "ward").await);
    assert_only(&ward.look().await, &["warning: versions: instance ward: ", "1.0.0 (", "1.1.0 ("]);
}

#[tokio::test]
async fn a_stream_that_captures_requests_is_found() {
    let ward = Ward::open(ASK).await;
    let _instance = ward.instance("1.0.0", "ward").await;
    let subjects = vec!["ward.>".to_owned()];
    ward.stream(Config { name: "GREEDY".to_owned(), subjects, ..Config::default() }).await;
    let words = ["error: capture: ward.v1.Ward/Ask, subject ward.ask, stream GREEDY: ", "nats stream edit"];
    assert_only(&ward.look().await, &words);
}

#[tokio::test]
async fn a_missing_stream_is_found_for_each_route_that_needs_it() {
    let ward = Ward::open(&[STORE, FOLLOW].join("\n")).await;
    let found = ward.look().await;
    let lines = found.lines();
    assert_eq!(lines[2], "2 findings: 2 errors, 0 warnings");
    for (line, rpc) in lines.iter().zip(["Follow", "Store"]) {
        assert!(line.starts_with(&format!("error: stream: ward.v1.Ward/{rpc}, subject ward.")), "{line}");
        assert!(
            line.contains("stream WARD: the stream does not exist")
                && line.contains("create it with the subject ward.")
        );
    }
    let any = Ward::open(&STORE.replace("stream: \"WARD\" ", "")).await;
    assert_only(&any.look().await, &["error: stream: ", "no stream captures the subject", "ward.stored.*"]);
}

#[tokio::test]
async fn a_stream_without_the_subject_is_found_and_so_is_the_one_that_has_it() {
    let open = Ward::open(STORE).await;
    open.stream(Config { subjects: vec!["else".to_owned()], ..ward() }).await;
    assert_only(
        &open.look().await,
        &["error: stream: ", "does not capture ward.stored.*", "subjects are else"],
    );
    let subjects = vec!["ward.stored.>".to_owned()];
    open.stream(Config { name: "OTHER".to_owned(), subjects, ..Config::default() }).await;
    assert_only(&open.look().await, &["error: stream: ", "stream WARD: ", "but another one does: OTHER"]);
    let part = Ward::open(STORE).await;
    part.stream(Config { subjects: vec!["ward.stored.a".to_owned()], ..ward() }).await;
    assert_only(&part.look().await, &["warning: stream: ", "only a part of ward.stored.*"]);
}

#[tokio::test]
async fn a_stream_in_memory_loses_what_a_route_says_is_stored() {
    let open = Ward::open(&[STORE, FOLLOW].join("\n")).await;
    open.stream(Config { storage: StorageType::Memory, ..ward() }).await;
    let lines = open.look().await.lines();
    assert!(lines[0].starts_with("error: durability: ward.v1.Ward/Store"), "{lines:?}");
    assert!(lines[1].starts_with("warning: durability: ward.v1.Ward/Follow"), "{lines:?}");
}

#[tokio::test]
async fn a_stream_with_one_replica_in_a_cluster_is_found() {
    let cluster = tokio::task::spawn_blocking(|| local_nats::Cluster::start(3)).await.unwrap().unwrap();
    let client = async_nats::connect(cluster.nodes()[0].url()).await.unwrap();
    let (_folder, sources) = contracts(STORE);
    jetstream::new(client).create_stream(ward()).await.unwrap();
    let found = diagnose(Doctor::at(cluster.urls(), sources)).await.unwrap();
    assert_only(&found, &["warning: durability: ", "stream WARD: ", "one replica", "replicas to 3"]);
}

#[tokio::test]
async fn a_duplicate_window_that_retries_outlast_is_found() {
    let open = Ward::open(STORE).await;
    open.stream(Config { duplicate_window: Duration::from_secs(15), ..ward() }).await;
    assert_only(&open.look().await, &["warning: duplicate-window: ", "for 15s", "window to 16s"]);
}

#[tokio::test]
async fn a_payload_limit_below_that_of_requests_is_found() {
    let ward = Ward::with(ASK, "max_payload: 65536").await;
    let _instance = ward.instance("1.0.0", "ward").await;
    assert_only(&ward.look().await, &["warning: payload: ", "65536", "GW_MAX_REQUEST_BYTES=65536"]);
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
    let may = r#"publish: {allow: ["$SRV.>", "$JS.API.>", "$SYS.REQ.USER.INFO", "ward.other"]}"#;
    let ward = Ward::with(ASK, &users(may)).await;
    let _instance = ward.instance("1.0.0", "ward").await;
    let words =
        ["error: permissions: ward.v1.Ward/Ask, subject ward.ask: ", "\"gateway\" may not publish to it"];
    assert_only(&ward.look().await, &words);
    let log = std::fs::read_to_string(ward.server.log()).unwrap();
    assert!(!log.contains("Violation"), "{log}");
    let operator = Doctor { as_operator: true, ..ward.doctor.clone() };
    let found = diagnose(operator).await.unwrap();
    assert!(found.findings.is_empty() && unseen(&found)[0].contains("--as-operator"), "{found:?}");
}

#[tokio::test]
async fn a_user_without_an_inbox_is_told_so_and_nothing_passes_for_fine() {
    let ward = Ward::with(ASK, &users(r#"subscribe: {allow: "_INBOX_gateway.>"}"#)).await;
    let found = ward.look().await;
    assert_only(&found, &["error: permissions: ", "subscribe to \"_INBOX.", "GW_NATS_INBOX_PREFIX"]);
    assert_eq!(unseen(&found), ["not looked at: all: no reply can be received"]);
}

#[tokio::test]
async fn what_the_user_may_not_ask_is_not_looked_at() {
    let ward = Ward::with(&[ASK, STORE].join("\n"), &users(r#"publish: {allow: "ward.>"}"#)).await;
    let found = ward.look().await;
    let checks: Vec<_> = found.unseen.iter().map(|unseen| unseen.check).collect();
    assert!(found.findings.is_empty(), "{found:?}");
    let wanted = ["capture", "clock", "jetstream", "permissions", "responders", "stream", "versions"];
    assert_eq!(checks, wanted, "{found:?}");
}

#[tokio::test]
async fn an_account_without_jetstream_is_found_where_a_route_needs_it() {
    for lines in ["jetstream: disabled", &users("publish: \">\"").replace("jetstream: enabled,", "")] {
        let open = Ward::with(STORE, lines).await;
        assert_only(&open.look().await, &["error: jetstream: ", "not enabled", "jetstream: enabled"]);
    }
    let open = Ward::with(ASK, "jetstream: disabled").await;
    let _instance = open.instance("1.0.0", "ward").await;
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
    let mut open = Ward::open(STORE).await;
    open.stream(ward()).await;
    open.doctor.nats.url = older(open.server.port()).await;
    assert_only(&open.look().await, &["error: version: nats-server 2.11.9 is too old"]);
    let mut open = Ward::open(ASK).await;
    open.doctor.nats.url = older(open.server.port()).await;
    assert_only(&open.look().await, &["warning: version: nats-server 2.11.9 is too old"]);
}

#[tokio::test]
async fn a_clock_that_differs_from_the_servers_is_found() {
    let hour = Duration::from_secs(3_600);
    for (wall, side) in [(WallClock::ahead(hour), "ahead of"), (WallClock::behind(hour), "behind")] {
        let mut ward = Ward::open(ASK).await;
        ward.doctor.nats.wall = wall;
        assert_only(&ward.look().await, &["warning: clock: ", side, "the server's", "NTP"]);
    }
}

#[tokio::test]
async fn a_missing_stream_of_the_order_system_is_found() {
    let mut ward = Ward::open(ASK).await;
    ward.doctor.sources = Options::default();
    let found = ward.look().await;
    let missing = found.findings.iter().filter(|finding| finding.cure.contains("gateway provision"));
    assert_eq!(missing.count(), order_streams::ALL.len(), "{found:?}");
    // Its workers are known to announce themselves; without those for maintenance, calls succeed.
    let absent = found.findings.iter().filter(|finding| finding.check == "responders");
    let severe = absent.filter(|finding| finding.severity == Severity::Error).count();
    let vital = orders::served::contract().serving_routes().count();
    assert!(severe == vital && found.unseen.is_empty(), "{found:?}");
}

#[tokio::test]
async fn a_server_that_falls_silent_ends_the_command_and_nothing_passes_for_fine() {
    let mut ward = Ward::open(&[ASK, STORE].join("\n")).await;
    let proxy = Proxy::to(ward.server.port()).await;
    proxy.mute_after("$SYS.REQ.USER.INFO");
    (ward.doctor.nats.url, ward.doctor.within) = (proxy.url(), 2);
    let found = timeout(PATIENCE, ward.look()).await.expect("an end");
    let checks: Vec<_> = found.unseen.iter().map(|unseen| unseen.check).collect();
    assert!(found.findings.is_empty(), "{found:?}");
    let wanted = ["capture", "clock", "jetstream", "permissions", "responders", "stream", "versions"];
    assert_eq!(checks, wanted, "{found:?}");
}
