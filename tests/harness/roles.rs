//! The roles of deploy/nats/roles.conf on a nats-server with that file: their users, their permissions, and the
//! permission violations that the server reports.

use std::sync::{Arc, Mutex};

use async_nats::{Client, ConnectOptions, Event};
use nats::{Connection, Options};
use serde_json::Value;
use tokio::time::Instant;

use crate::harness::system::{PATIENCE, until};

/// The shipped file.
pub const CONF: &str = include_str!("../../deploy/nats/roles.conf");
/// All roles.
pub const ALL: [&str; 9] = [
    "gateway",
    "worker",
    "provisioner",
    "operator",
    "subscriber",
    "catalog_publisher",
    "breakglass",
    "system",
    "breakglass_system",
];

/// The file with passwords in front: the server prefers variables of the configuration to those of its environment.
pub fn config() -> String {
    let passwords = ALL.map(|role| format!("NATS_{}_PASSWORD: \"{role}'s secret\"", role.to_uppercase()));
    passwords.join("\n") + "\n" + CONF
}

/// The same options, with this user.
pub fn by(options: Options, user: &str, password: &str) -> Options {
    Options { user: Some(user.to_owned()), password: Some(password.to_owned().into()), ..options }
}

/// Connection options of a role.
pub fn options(url: &str, name: &str) -> Options {
    let options = by(Options::at(url), name, &format!("{name}'s secret"));
    Options { inbox_prefix: format!("_INBOX_{name}"), ..options }
}

/// Creates the streams, as the provisioner.
pub async fn provision(url: &str) {
    let connection = Connection::connect(&options(url, "provisioner"), "gateway provision").await.unwrap();
    order_streams::open(&connection, 1, true).await.expect("the streams");
}

/// A plain client with the user of a role.
pub struct RoleClient {
    pub client: Client,
    pub name: &'static str,
    events: Arc<Mutex<Vec<String>>>,
}

impl RoleClient {
    pub async fn of(url: &str, name: &'static str) -> RoleClient {
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = events.clone();
        let options = ConnectOptions::new()
            .user_and_password(name.to_owned(), format!("{name}'s secret"))
            .custom_inbox_prefix(format!("_INBOX_{name}"))
            .event_callback(move |event: Event| {
                log.lock().unwrap().push(event.to_string());
                std::future::ready(())
            });
        RoleClient { client: options.connect(url).await.expect("a connection"), name, events }
    }

    /// Publishes, and waits for the permission violation.
    pub async fn publish_is_denied(&self, subject: &str, payload: &str) {
        let reply = self.client.new_inbox();
        self.client.publish_with_reply(subject.to_owned(), reply, payload.to_owned().into()).await.unwrap();
        self.sees(&format!("Permissions Violation for Publish to \"{subject}\"")).await;
    }

    /// Subscribes, with or without a queue group, and waits for the permission violation.
    pub async fn subscribe_is_denied(&self, subject: &str, queue: Option<&str>) {
        let subject = subject.to_owned();
        let _subscriber = match queue {
            Some(queue) => self.client.queue_subscribe(subject.clone(), queue.to_owned()).await.unwrap(),
            None => self.client.subscribe(subject.clone()).await.unwrap(),
        };
        self.sees(&format!("Permissions Violation for Subscription to \"{subject}\"")).await;
    }

    async fn sees(&self, words: &str) {
        let what = format!("{} gets {words}", self.name);
        until(&what, async || self.events.lock().unwrap().iter().any(|event| event.contains(words))).await;
    }
}

/// All streams of the server: configuration and contents.
pub async fn state(nats: &Connection) -> Vec<Value> {
    let mut all = Vec::new();
    for name in order_streams::ALL {
        let subject = format!("$JS.API.STREAM.INFO.{name}");
        let deadline = Instant::now() + PATIENCE;
        let reply = nats.request(subject, Default::default(), Default::default(), deadline).await.unwrap();
        let info: Value = serde_json::from_slice(&reply.payload).unwrap();
        assert!(info["error"].is_null(), "{info}");
        all.push(serde_json::json!([info["config"], info["state"]]));
    }
    all
}

/// A list of subjects in the file: of a role, `publish` or `subscribe`, `allow` or `deny`.
pub fn list(role: &str, act: &str, word: &str) -> Vec<&'static str> {
    let part = |text: &'static str, begin: String, end: &str| {
        text.split_once(&begin).map(|(_, rest)| rest.split(end).next().unwrap_or_default())
    };
    let role = part(CONF, format!("\n{role}_may: {{\n"), "\n}\n").expect("a role");
    let act = part(role, format!("  {act}: {{\n"), "\n  }").expect("an act");
    let list = part(act, format!("{word}: [\n"), "]").unwrap_or_default();
    let lines = list.lines().map(str::trim).filter(|line| line.starts_with('"'));
    lines.map(|line| line.trim_matches('"')).collect()
}
