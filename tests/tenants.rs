//! Who may call what for which tenant: every kind of route with every access rule, by callers of every sort. What is
//! refused reaches no service.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use async_nats::Message;
use catalog_sources::Options;
use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use server::auth::apikey;
use server::config::access::Access;
use tokio::task::JoinHandle;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::harness::codec;
use crate::harness::dynamic::{Dynamic, text};
use crate::harness::system::reason;

const SERVICE: &str = "/rooms.v1.Rooms/";

#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    tenant: String,
}

/// Each access rule: its name, its option, and what the subjects end with.
const RULES: [(&str, &str, &str); 6] = [
    ("Public", "public: true", ""),
    ("Known", "authenticated: true", ""),
    ("Scoped", "scope: \"rooms.use\" across_tenants: true", ""),
    ("Field", "scope: \"rooms.use\" tenant_field: \"tenant\"", ""),
    ("Subject", "scope: \"rooms.use\"", ".{$tenant}"),
    ("Both", "scope: \"rooms.use\" tenant_field: \"tenant\"", ".{$tenant}"),
];

/// Each kind: its name, its types, and its route.
const KINDS: [(&str, &str, &str); 6] = [
    ("Get", "(Ask) returns (Page)", ""),
    ("List", "(Ask) returns (stream Page)", "kind: KIND_REQUEST_MANY replies: {count: 1}"),
    ("Emit", "(Ask) returns (google.protobuf.Empty)", "kind: KIND_EMIT"),
    ("Store", "(Ask) returns (Stored)", "kind: KIND_EMIT_DURABLE durable: {message_id: \"id\"}"),
    ("Load", "(stream Ask) returns (Loaded)", "kind: KIND_EMIT_DURABLE"),
    ("Watch", "(Ask) returns (stream Page)", "kind: KIND_SUBSCRIBE"),
];

/// Each caller: its name, its scope, and its customer.
const CALLERS: [(&str, &str, Option<&str>); 5] = [
    ("ann", "rooms.use", Some("ann")),
    ("bob", "rooms.use", Some("bob")),
    ("everywhere", "rooms.use", Some("*")),
    ("nowhere", "rooms.use", None),
    ("guest", "-", Some("ann")),
];

/// A service with an rpc of every kind for every rule, such as `FieldGet`.
fn proto() -> String {
    let mut rpcs = String::new();
    for (rule, access, end) in RULES {
        for (kind, types, route) in KINDS {
            // A subscription reads what its subject says.
            let end = if (rule, kind) == ("Field", "Watch") { ".{tenant}" } else { end };
            let subject = format!("rooms.{rule}.{kind}{end}");
            let route = format!("{{subject: \"{subject}\" {route}}}");
            let options = format!(
                "option (natsgateway.v1.access) = {{{access}}}; option (natsgateway.v1.route) = {route};"
            );
            writeln!(rpcs, "rpc {rule}{kind}{types} {{ {options} }}").unwrap();
        }
    }
    format!(
        "syntax = \"proto3\"; package rooms.v1; import \"google/protobuf/empty.proto\";
         import \"natsgateway/v1/access.proto\"; import \"natsgateway/v1/route.proto\";
         service Rooms {{ {rpcs} }}
         message Ask {{ string id = 1; string tenant = 2; }} message Page {{ string text = 1; }}
         message Stored {{ uint64 sequence = 1; bool duplicate = 2; }} message Loaded {{ uint64 stored = 1; }}"
    )
}

/// A gateway for the rooms, the keys of its callers, and what reaches its services.
struct Rooms {
    dynamic: Dynamic,
    keys: BTreeMap<&'static str, String>,
    _folder: tempfile::TempDir,
}

impl Rooms {
    async fn open() -> Rooms {
        let folder = tempfile::tempdir().unwrap();
        let (file, list): (PathBuf, PathBuf) =
            (folder.path().join("rooms.proto"), folder.path().join("keys"));
        std::fs::write(&file, proto()).unwrap();
        let sources = Options { proto: vec![file], ..Options::default() };
        let catalog = gateway::contracts::read(&sources, false).unwrap();
        let made = CALLERS.map(|(name, scope, customer)| {
            (name, apikey::new(&catalog, name, &[scope.to_owned()], customer).unwrap())
        });
        let lines: Vec<_> = made.iter().map(|(_, new)| new.line.clone()).collect();
        std::fs::write(&list, lines.join("\n")).unwrap();
        let access = Access { api_keys: Some(list), ..Access::default() };
        let dynamic = Dynamic::of(&proto(), |config, _| config.access = access).await;
        let subjects = ["Store", "Load"].map(|kind| [format!("rooms.*.{kind}"), format!("rooms.*.{kind}.*")]);
        let stream = async_nats::jetstream::stream::Config {
            name: "ROOMS".to_owned(),
            subjects: subjects.concat(),
            ..Default::default()
        };
        async_nats::jetstream::new(dynamic.client.clone()).create_stream(stream).await.unwrap();
        let keys = made.into_iter().map(|(name, new)| (name, new.key.to_string())).collect();
        Rooms { dynamic, keys, _folder: folder }
    }

    /// Answers requests, and returns everything that was published until `rooms.end`.
    async fn recorded(&self) -> JoinHandle<Vec<Message>> {
        let mut all = self.dynamic.client.subscribe("rooms.>").await.unwrap();
        self.dynamic.settled().await;
        let client = self.dynamic.client.clone();
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(message) =
                all.next().await.filter(|message| message.subject.as_str() != "rooms.end")
            {
                let kind = message.subject.split('.').nth(2).unwrap();
                if let (Some(reply), "Get" | "List") = (message.reply.clone(), kind) {
                    client.publish(reply, "{\"text\":\"yes\"}".into()).await.unwrap();
                }
                seen.push(message);
            }
            seen
        })
    }

    /// Streams these messages to be stored.
    async fn load_as(&self, caller: &str, rpc: &str, asks: Vec<Ask>) -> Result<bytes::Bytes, Status> {
        let messages = stream::iter(asks).map(|ask| bytes::Bytes::from(ask.encode_to_vec()));
        let metadata = [("x-api-key", self.keys[caller].as_str())];
        codec::send(&self.dynamic.channel, &format!("{SERVICE}{rpc}"), messages, &metadata).await
    }

    /// Calls an rpc as somebody, with metadata that claims to be somebody else.
    async fn open_as(
        &self,
        caller: &str,
        rpc: &str,
        ask: &Ask,
    ) -> Result<Option<Streaming<bytes::Bytes>>, Status> {
        let (path, message) = (format!("{SERVICE}{rpc}"), bytes::Bytes::from(ask.encode_to_vec()));
        let mut metadata = vec![("tenant", "zoe"), ("nats-tenant", "zoe"), ("principal", "key:root")];
        metadata.extend(self.keys.get(caller).map(|key| ("x-api-key", key.as_str())));
        let channel = &self.dynamic.channel;
        if rpc.ends_with("Load") {
            return codec::send(channel, &path, stream::iter([message]), &metadata).await.map(|_| None);
        }
        let mut replies = codec::call(channel, &path, message, &metadata).await?;
        if rpc.ends_with("Watch") {
            return Ok(Some(replies));
        }
        replies.message().await.map(|_| None)
    }
}

/// What a caller gets who names a tenant in the request.
fn expected(rule: &str, caller: &str, named: &str) -> Code {
    match (rule, caller) {
        ("Public", _) => Code::Ok,
        (_, "nobody") => Code::Unauthenticated,
        ("Known", _) => Code::Ok,
        (_, "guest") => Code::PermissionDenied,
        ("Scoped", _) | ("Field" | "Both", "everywhere") | ("Subject", "ann" | "bob") => Code::Ok,
        ("Field" | "Both", own) if own == named => Code::Ok,
        _ => Code::PermissionDenied,
    }
}

/// The header of a message, if it is there once.
fn header(message: &Message, name: &str) -> Option<String> {
    let headers = message.headers.as_ref().unwrap();
    let all: Vec<_> = headers.get_all(name).map(ToString::to_string).collect();
    assert!(all.len() <= 1, "{all:?}");
    all.into_iter().next()
}

#[tokio::test]
async fn every_caller_gets_from_every_kind_what_its_rule_says_and_nothing_else_reaches_a_service() {
    let rooms = Rooms::open().await;
    let recorded = rooms.recorded().await;
    let (mut wrong, mut served) = (Vec::new(), BTreeMap::new());
    for (rule, ..) in RULES {
        for (kind, ..) in KINDS {
            for caller in CALLERS.map(|(name, ..)| name).into_iter().chain(["nobody"]) {
                for named in ["ann", "bob"] {
                    let ask = Ask { id: format!("{rule}-{kind}-{caller}-{named}"), tenant: named.into() };
                    let answer = rooms.open_as(caller, &format!("{rule}{kind}"), &ask).await;
                    let (code, why) = match &answer {
                        Ok(_) => (Code::Ok, String::new()),
                        Err(status) => (status.code(), reason(status)),
                    };
                    let wanted = expected(rule, caller, named);
                    let reason = match wanted {
                        Code::Ok => "",
                        Code::Unauthenticated => "UNAUTHENTICATED",
                        _ => "PERMISSION_DENIED",
                    };
                    if (code, why.as_str()) != (wanted, reason) {
                        wrong.push(format!("{}: {answer:?}", ask.id));
                    }
                    if wanted == Code::Ok && kind != "Watch" {
                        served.insert(ask.id, (rule, caller));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    rooms.dynamic.client.publish("rooms.end", "".into()).await.unwrap();
    for message in recorded.await.unwrap() {
        let fields: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        let (rule, caller) = served.remove(fields["id"].as_str().unwrap()).expect("a call that was served");
        let known = rule != "Public" && caller != "nobody";
        let tenant = CALLERS.iter().find(|(name, ..)| known && *name == caller).and_then(|(_, _, own)| *own);
        let tenant = tenant.filter(|tenant| *tenant != "*");
        assert_eq!(header(&message, "Tenant").as_deref(), tenant, "{rule} {caller}");
        assert_eq!(header(&message, "Principal"), known.then(|| format!("key:{caller}")), "{rule} {caller}");
        // The token is the caller's tenant, or what a caller for all has named.
        let named = if rule == "Both" { fields["tenant"].as_str() } else { tenant };
        let end = format!(".{}", named.unwrap_or("?"));
        assert!(
            !["Subject", "Both"].contains(&rule) || message.subject.ends_with(&end),
            "{}",
            message.subject
        );
    }
    assert!(served.is_empty(), "all others reached a service: {served:?}");
    rooms.dynamic.gateway.drain().await;
}

fn ask(id: &str, tenant: &str) -> Ask {
    Ask { id: id.to_owned(), tenant: tenant.to_owned() }
}

#[tokio::test]
async fn a_stream_of_messages_ends_at_the_first_one_for_another_tenant() {
    let rooms = Rooms::open().await;
    let recorded = rooms.recorded().await;
    let asks = vec![ask("1", "ann"), ask("2", "ann"), ask("3", "bob"), ask("4", "ann")];
    let refused = rooms.load_as("ann", "FieldLoad", asks.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "PERMISSION_DENIED"));
    assert!(refused.message().starts_with("message 3 of the stream: the field \"tenant\""), "{refused:?}");
    assert_eq!(refused.get_error_details().error_info().unwrap().metadata["stored"], "2");
    rooms.load_as("everywhere", "FieldLoad", asks).await.unwrap();
    rooms.dynamic.client.publish("rooms.end", "".into()).await.unwrap();
    assert_eq!(recorded.await.unwrap().len(), 2 + 4);
    rooms.dynamic.gateway.drain().await;
}

#[tokio::test]
async fn tenants_hear_only_what_is_emitted_for_themselves() {
    let rooms = Rooms::open().await;
    for rule in ["Field", "Subject"] {
        let watch = format!("{rule}Watch");
        let mut anns = rooms.open_as("ann", &watch, &ask("", "ann")).await.unwrap().unwrap();
        let mut bobs = rooms.open_as("bob", &watch, &ask("", "bob")).await.unwrap().unwrap();
        for tenant in ["bob", "ann"] {
            let subject = format!("rooms.{rule}.Watch.{tenant}");
            let payload = format!("{{\"text\":\"for {tenant}\"}}");
            rooms.dynamic.client.publish(subject, payload.into()).await.unwrap();
        }
        for (stream, expected) in [(&mut anns, "for ann"), (&mut bobs, "for bob")] {
            assert_eq!(text(&stream.message().await.unwrap().unwrap()), expected, "{rule}");
        }
    }
    rooms.dynamic.gateway.drain().await;
}

#[tokio::test]
async fn a_message_id_is_that_of_a_tenant_also_for_a_caller_for_all() {
    let rooms = Rooms::open().await;
    for (caller, tenant, sequence) in
        [("everywhere", "ann", 1), ("everywhere", "bob", 2), ("bob", "bob", 2), ("everywhere", "bob", 2)]
    {
        let metadata = [("x-api-key", rooms.keys[caller].as_str())];
        let (path, message) = (format!("{SERVICE}FieldStore"), ask("same", tenant).encode_to_vec().into());
        let stored = codec::ask(&rooms.dynamic.channel, &path, message, &metadata).await.unwrap();
        assert_eq!(stored[..2], [0x08, sequence], "{caller} for {tenant}");
    }
    rooms.dynamic.gateway.drain().await;
}

#[tokio::test]
async fn where_callers_are_not_known_what_is_for_tenants_is_for_nobody() {
    let dynamic = Dynamic::of(&proto(), |_, _| {}).await;
    for rpc in ["FieldEmit", "SubjectEmit", "FieldWatch", "SubjectWatch"] {
        let path = format!("{SERVICE}{rpc}");
        for tenant in ["", "ann"] {
            let message = ask("x", tenant).encode_to_vec().into();
            let refused =
                codec::call(&dynamic.channel, &path, message, &[("tenant", "ann")]).await.unwrap_err();
            let found = (refused.code(), reason(&refused));
            assert_eq!(found, (Code::PermissionDenied, "PERMISSION_DENIED".to_owned()), "{rpc} {tenant}");
        }
    }
    for rpc in ["PublicEmit", "KnownEmit", "ScopedEmit"] {
        let message = ask("x", "ann").encode_to_vec().into();
        codec::ask(&dynamic.channel, &format!("{SERVICE}{rpc}"), message, &[]).await.unwrap();
    }
    dynamic.gateway.drain().await;
}
